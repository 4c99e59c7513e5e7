"""Compares what a pipeline holds with what it must hold: posts and members, their contexts and their vectors."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from encoders.errors import Outcome, Unencodable, one_vector
from nearline.chaos.expected_state import Entry, ExpectedState, Member, time_us
from nearline.chaos.expected_vectors import ExpectedVectors
from nearline.chaos.feed import Event
from nearline.chaos.pipeline_state import QUESTIONS, PipelineState
from schemas.contexts import MemberContext
from schemas.embeddings import Vector
from schemas.ids import Kind

_SAME: Final = 1e-5
"""Allowed 1 - cosine of two vectors, computed as half their squared distance. They differ a little in fp32 because the
pipeline encodes in other batches than we do."""
_SAME_SCORE: Final = 1e-4
_HISTORY_CHARS: Final = 200
"""How much of a post's text is in a member's history, by the design."""

Seen = dict[tuple[str, str], int]
"""The revision that was last seen, by tier and entity id."""


class Findings(NamedTuple):
    """What is wrong: ids of posts, or of members. Every set is empty where all is well."""

    lost: set[str]
    """Must be in the tiers, and posts in every answer too, but are missing somewhere."""
    resurrected: set[str]
    """Were deleted, but have a live context or are in a tier or an answer."""
    older: set[str]
    """The context is not what the newest events give, or a tier does not hold the newest context's record."""
    other_vector: set[str]
    """The vector in a tier is not what `nearline encode` gives for the context."""
    unknown: set[str]
    """No event names them."""
    backwards: set[str]
    """The revision in a tier is lower than one that was seen there before."""
    repeated: set[str]
    """One of their revisions was embedded twice."""


def post_findings(expected: ExpectedState, actual: PipelineState, vectors: ExpectedVectors, seen: Seen) -> Findings:
    """Updates `seen` with the current revisions."""
    contexts, cold, hot = actual.post_contexts, actual.cold_posts, actual.hot_posts
    everywhere: list[Mapping[str, object]] = [contexts, cold, hot, *actual.answers]
    lost = {post_id for post_id in expected.live if any(post_id not in part for part in everywhere)}
    there = expected.live.keys() - lost
    older = {post_id for post_id in there if _is_older_post(post_id, expected, actual)}
    deleted_contexts = {post_id for post_id, context in contexts.items() if context.deleted}
    shown = set[str]().union(*everywhere)
    return Findings(
        lost=lost,
        resurrected=expected.deleted & set[str]().union(contexts.keys() - deleted_contexts, cold, hot, *actual.answers),
        older=older,
        other_vector=_posts_of_other_vectors(sorted(there - older), actual, vectors),
        unknown=shown - expected.live.keys() - expected.deleted,
        backwards=_backwards("cold posts", {post_id: post.revision for post_id, post in cold.items()}, seen)
        | _backwards("hot posts", hot, seen),
        repeated=_repeated(actual, "post"),
    )


def member_findings(expected: ExpectedState, actual: PipelineState, vectors: ExpectedVectors, seen: Seen) -> Findings:
    """Updates `seen` with the current revisions."""
    contexts, cold = actual.member_contexts, actual.members
    live = {member_id for member_id, member in cold.items() if not member.deleted}
    expected_ids = {member_id for member_id, member in expected.members.items() if member.must_be_there} | (
        contexts.keys() & expected.members.keys()
    )
    lost = {member_id for member_id in expected_ids if member_id not in contexts or member_id not in live}
    older = {member_id for member_id in expected_ids - lost if _is_older_member(member_id, expected, actual)}
    deleted_contexts = {member_id for member_id, context in contexts.items() if context.deleted}
    unknown = (contexts.keys() | cold.keys()) - expected.members.keys() - expected.departed
    if actual.num_members > len(live):
        unknown.add(f"{actual.num_members - len(live)} more in the cold tier than have a context")
    return Findings(
        lost=lost,
        resurrected=expected.departed & ((contexts.keys() - deleted_contexts) | live),
        older=older,
        other_vector=_members_of_other_vectors(sorted(expected_ids - lost - older), actual, vectors),
        unknown=unknown,
        backwards=_backwards("members", {member_id: member.revision for member_id, member in cold.items()}, seen),
        repeated=_repeated(actual, "member"),
    )


def _is_older_post(post_id: str, expected: ExpectedState, actual: PipelineState) -> bool:
    event, context, stored = expected.live[post_id], actual.post_contexts[post_id], actual.cold_posts[post_id]
    newest = (False, event["text"], event["author_id"], event["language"], time_us(event["created_at"]))
    author, language, created_at_us = context.author_id, context.language, context.created_at_us
    return (
        (context.deleted, context.text, author, language, created_at_us) != newest
        or (stored.author_id, stored.language, stored.created_at_us) != (author, language, created_at_us)
        or not stored.revision == actual.hot_posts[post_id] == context.revision
    )


def _is_older_member(member_id: str, expected: ExpectedState, actual: PipelineState) -> bool:
    member, context, stored = expected.members[member_id], actual.member_contexts[member_id], actual.members[member_id]
    return (
        context.deleted
        or not _has_profile(context, member.profile)
        or not _has_history(context, member, expected)
        or len(context.hidden) != len(member.hidden)
        or set(context.hidden) != member.hidden
        or not member.acted <= set(context.acted) <= member.possibly_acted
        or (stored.revision, stored.acted, stored.hidden) != (context.revision, context.acted, context.hidden)
    )


def _has_profile(context: MemberContext, profile: Event | None) -> bool:
    newest = profile or {"headline": None, "skills": [], "industry": None, "language": None}
    return (context.headline, context.skills, context.industry, context.language) == (
        newest["headline"],
        newest["skills"],
        newest["industry"],
        newest["language"],
    )


def _has_history(context: MemberContext, member: Member, expected: ExpectedState) -> bool:
    """The entries are ordered by time, each is there once, and its text is the start of one that the post once had."""
    entries = [Entry(entry.at_us, entry.post_id, entry.action) for entry in context.history]
    starts = {post_id: {text[:_HISTORY_CHARS] for text in expected.texts[post_id]} for _, post_id, _ in member.possible}
    return (
        entries == sorted(set(entries))
        and member.history <= set(entries) <= member.possible
        and all(entry.text in starts[entry.post_id] for entry in context.history)
    )


def _posts_of_other_vectors(post_ids: list[str], actual: PipelineState, vectors: ExpectedVectors) -> set[str]:
    """The hot tier gives out no vectors, so there the scores of the questions are compared."""
    questions = [vectors.question(question) for question in QUESTIONS]
    outcomes = map(one_vector, vectors.posts([actual.post_contexts[post_id] for post_id in post_ids]))
    return {
        post_id
        for post_id, outcome in zip(post_ids, outcomes, strict=True)
        if not is_same(actual.cold_posts[post_id].vector, outcome)
        or isinstance(outcome, Unencodable)
        or outcome is None
        or any(
            abs(scores[post_id] - float(question @ outcome)) > _SAME_SCORE
            for question, scores in zip(questions, actual.answers, strict=True)
        )
    }


def _members_of_other_vectors(member_ids: list[str], actual: PipelineState, vectors: ExpectedVectors) -> set[str]:
    outcomes = vectors.members([actual.member_contexts[member_id] for member_id in member_ids])
    pairs = zip(member_ids, outcomes, strict=True)
    return {member_id for member_id, outcome in pairs if not is_same(actual.members[member_id].vector, outcome)}


def is_same(stored: Vector | None, outcome: Outcome) -> bool:
    """Also true where both are missing."""
    expected = one_vector(outcome)
    if stored is None or expected is None or isinstance(expected, Unencodable):
        return stored is None and expected is None
    return stored.shape == expected.shape and float(np.sum((stored - expected) ** 2)) / 2 < _SAME


def _backwards(tier: str, revisions: Mapping[str, int], seen: Seen) -> set[str]:
    """Includes an entity whose tombstone is gone and that is there with an older revision."""
    behind = {entity_id for entity_id, revision in revisions.items() if revision < seen.get((tier, entity_id), 0)}
    seen.update({(tier, entity_id): revision for entity_id, revision in revisions.items()})
    return behind


def _repeated(actual: PipelineState, kind: Kind) -> set[str]:
    return {entity_id for (entity_id, _), times in actual.embedded[kind].items() if times > 1}
