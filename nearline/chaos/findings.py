"""Compares what a pipeline holds with what must be there: posts and members, their contexts and their vectors."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from encoders.errors import Outcome, Unencodable
from nearline.chaos.expected_state import Entry, ExpectedState, Member, time_us
from nearline.chaos.expected_vectors import ExpectedVectors
from nearline.chaos.feed import Event
from nearline.chaos.pipeline_state import QUESTIONS, PipelineState
from schemas.contexts import MemberContext
from schemas.embeddings import Vector
from schemas.ids import Kind

_SAME: Final = 1e-5
"""Half the squared distance, which is 1 - cosine, of a package in fp32: the pipeline's batches are others than ours."""
_SAME_SCORE: Final = 1e-4
_HISTORY_CHARS: Final = 200
"""Of a post's text in a member's history, by the design."""

Seen = dict[tuple[str, str], int]
"""The newest revision that was seen, by tier and entity id."""


class Findings(NamedTuple):
    """Ids of one kind of entity, none where all is well."""

    lost: set[str]
    """Should be in the tiers, and posts in every answer, and are not."""
    resurrected: set[str]
    """Are deleted and have a context, or are in a tier or an answer."""
    older: set[str]
    """Whose context is not what the newest events make, or whose record in a tier is not of the newest context."""
    other_vector: set[str]
    """Whose vector in a tier is not what `nearline encode` gives for the context."""
    unknown: set[str]
    """Whom no event names."""
    backwards: set[str]
    """Whose revision in a tier is below one seen before."""
    repeated: set[str]
    """Of which a revision was embedded twice."""


def post_findings(end: ExpectedState, held: PipelineState, vectors: ExpectedVectors, seen: Seen) -> Findings:
    """Adds to `seen` what is there now."""
    contexts, cold, hot = held.post_contexts, held.cold_posts, held.hot_posts
    everywhere: list[Mapping[str, object]] = [contexts, cold, hot, *held.answers]
    lost = {post_id for post_id in end.live if any(post_id not in part for part in everywhere)}
    there = end.live.keys() - lost
    older = {post_id for post_id in there if _is_older_post(post_id, end, held)}
    deleted_contexts = {post_id for post_id, context in contexts.items() if context.deleted}
    shown = set[str]().union(*everywhere)
    return Findings(
        lost=lost,
        resurrected=end.deleted & set[str]().union(contexts.keys() - deleted_contexts, cold, hot, *held.answers),
        older=older,
        other_vector=_posts_of_other_vectors(sorted(there - older), held, vectors),
        unknown=shown - end.live.keys() - end.deleted,
        backwards=_backwards("cold posts", {post_id: post.revision for post_id, post in cold.items()}, seen)
        | _backwards("hot posts", hot, seen),
        repeated=_repeated(held, "post"),
    )


def member_findings(end: ExpectedState, held: PipelineState, vectors: ExpectedVectors, seen: Seen) -> Findings:
    """Adds to `seen` what is there now."""
    contexts, cold = held.member_contexts, held.members
    live = {member_id for member_id, member in cold.items() if not member.deleted}
    expected = {member_id for member_id, member in end.members.items() if member.must_be_there} | (
        contexts.keys() & end.members.keys()
    )
    lost = {member_id for member_id in expected if member_id not in contexts or member_id not in live}
    older = {member_id for member_id in expected - lost if _is_older_member(member_id, end, held)}
    deleted_contexts = {member_id for member_id, context in contexts.items() if context.deleted}
    unknown = (contexts.keys() | cold.keys()) - end.members.keys() - end.departed
    if held.num_members > len(live):
        unknown.add(f"{held.num_members - len(live)} more in the cold tier than have a context")
    return Findings(
        lost=lost,
        resurrected=end.departed & ((contexts.keys() - deleted_contexts) | live),
        older=older,
        other_vector=_members_of_other_vectors(sorted(expected - lost - older), held, vectors),
        unknown=unknown,
        backwards=_backwards("members", {member_id: member.revision for member_id, member in cold.items()}, seen),
        repeated=_repeated(held, "member"),
    )


def _is_older_post(post_id: str, end: ExpectedState, held: PipelineState) -> bool:
    event, context, stored = end.live[post_id], held.post_contexts[post_id], held.cold_posts[post_id]
    said = (False, event["text"], event["author_id"], event["language"], time_us(event["created_at"]))
    author, language, created_at_us = context.author_id, context.language, context.created_at_us
    return (
        (context.deleted, context.text, author, language, created_at_us) != said
        or (stored.author_id, stored.language, stored.created_at_us) != (author, language, created_at_us)
        or not stored.revision == held.hot_posts[post_id] == context.revision
    )


def _is_older_member(member_id: str, end: ExpectedState, held: PipelineState) -> bool:
    member, context, stored = end.members[member_id], held.member_contexts[member_id], held.members[member_id]
    return (
        context.deleted
        or not _has_profile(context, member.profile)
        or not _has_history(context, member, end)
        or len(context.hidden) != len(member.hidden)
        or set(context.hidden) != member.hidden
        or not member.acted <= set(context.acted) <= member.possibly_acted
        or (stored.revision, stored.acted, stored.hidden) != (context.revision, context.acted, context.hidden)
    )


def _has_profile(context: MemberContext, profile: Event | None) -> bool:
    said = profile or {"headline": None, "skills": [], "industry": None, "language": None}
    return (context.headline, context.skills, context.industry, context.language) == (
        said["headline"],
        said["skills"],
        said["industry"],
        said["language"],
    )


def _has_history(context: MemberContext, member: Member, end: ExpectedState) -> bool:
    """In the order of time, each entry once, with a text that the post once had."""
    entries = [Entry(entry.at_us, entry.post_id, entry.action) for entry in context.history]
    starts = {post_id: {text[:_HISTORY_CHARS] for text in end.texts[post_id]} for _, post_id, _ in member.possible}
    return (
        entries == sorted(set(entries))
        and member.history <= set(entries) <= member.possible
        and all(entry.text in starts[entry.post_id] for entry in context.history)
    )


def _posts_of_other_vectors(post_ids: list[str], held: PipelineState, vectors: ExpectedVectors) -> set[str]:
    """The hot tier shows no vectors, but what it scores."""
    questions = [vectors.question(question) for question in QUESTIONS]
    outcomes = vectors.posts([held.post_contexts[post_id] for post_id in post_ids])
    return {
        post_id
        for post_id, outcome in zip(post_ids, outcomes, strict=True)
        if not _is_same(held.cold_posts[post_id].vector, outcome)
        or isinstance(outcome, Unencodable)
        or outcome is None
        or any(
            abs(scores[post_id] - float(question @ outcome)) > _SAME_SCORE
            for question, scores in zip(questions, held.answers, strict=True)
        )
    }


def _members_of_other_vectors(member_ids: list[str], held: PipelineState, vectors: ExpectedVectors) -> set[str]:
    outcomes = vectors.members([held.member_contexts[member_id] for member_id in member_ids])
    pairs = zip(member_ids, outcomes, strict=True)
    return {member_id for member_id, outcome in pairs if not _is_same(held.members[member_id].vector, outcome)}


def _is_same(stored: Vector | None, outcome: Outcome) -> bool:
    """No vector is the same as none."""
    if stored is None or outcome is None or isinstance(outcome, Unencodable):
        return stored is None and outcome is None
    return stored.shape == outcome.shape and float(np.sum((stored - outcome) ** 2)) / 2 < _SAME


def _backwards(tier: str, revisions: Mapping[str, int], seen: Seen) -> set[str]:
    """Also where the tombstone of before is gone and something older is there."""
    behind = {entity_id for entity_id, revision in revisions.items() if revision < seen.get((tier, entity_id), 0)}
    seen.update({(tier, entity_id): revision for entity_id, revision in revisions.items()})
    return behind


def _repeated(held: PipelineState, kind: Kind) -> set[str]:
    return {entity_id for (entity_id, _), times in held.embedded[kind].items() if times > 1}
