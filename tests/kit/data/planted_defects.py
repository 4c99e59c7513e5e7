"""Mistakes of a pipeline, each with the column of the table of `make chaos` that it must turn red."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from nearline.chaos.expected_state import ExpectedState
from nearline.chaos.expected_vectors import ReEncodedVectors
from nearline.chaos.feed import Event
from nearline.chaos.findings import Seen
from nearline.chaos.judge import verdict
from nearline.chaos.pipeline_state import PipelineState
from nearline.chaos.table import Round, figures
from schemas.contexts import HistoryEntry
from schemas.ids import Micros, PostId, Revision


class Case(NamedTuple):
    """A feed that has ended, and what a pipeline without a mistake holds then."""

    events: list[Event]
    end: ExpectedState
    held: PipelineState
    vectors: ReEncodedVectors

    def red(
        self, held: PipelineState | None = None, seen: Seen | None = None, handles: set[str] | None = None
    ) -> set[str]:
        """The columns that do not hold."""
        judged = verdict(self.end, held or self.held, self.vectors, seen if seen is not None else {}, handles or set())
        return red_columns([Round("random faults", ["kill -9 encode"], 1.0, judged)])


class PlantedDefect(NamedTuple):
    column: str
    what: str
    plant: Callable[[Case], PipelineState]


def without(name: str, key: Callable[[Case], str]) -> Callable[[Case], PipelineState]:
    """The held part of this name lacks one entity."""

    def plant(case: Case) -> PipelineState:
        part = getattr(case.held, name)
        return changed_part(case.held, name, {other: value for other, value in part.items() if other != key(case)})

    return plant


def changed_entity(
    name: str, key: Callable[[Case], str], change: Callable[[Case, Any], Any]
) -> Callable[[Case], PipelineState]:
    """One entity of that part is another; `change` is given what is there, or None."""

    def plant(case: Case) -> PipelineState:
        part = getattr(case.held, name)
        return changed_part(case.held, name, {**part, key(case): change(case, part.get(key(case)))})

    return plant


def changed_part(held: PipelineState, name: str, part: Any) -> PipelineState:
    """The cold tier counts what it holds."""
    held = held._replace(**{name: part})
    return held._replace(num_members=sum(not member.deleted for member in held.members.values()))


def changed_answer(change: Callable[[Case, dict[str, float]], dict[str, float]]) -> Callable[[Case], PipelineState]:
    return lambda case: case.held._replace(answers=[case.held.answers[0], change(case, case.held.answers[1])])


def embedded_twice(kind: Any, key: Callable[[Case], str]) -> Callable[[Case], PipelineState]:
    def plant(case: Case) -> PipelineState:
        embedded = {**case.held.embedded, kind: case.held.embedded[kind].copy()}
        embedded[kind][key(case), 1] += 1
        return case.held._replace(embedded=embedded)

    return plant


def a_post(case: Case) -> str:
    return min(case.end.live)


def another_post(case: Case) -> str:
    return max(case.end.live)


def a_deleted_post(case: Case) -> str:
    return min(case.end.deleted)


def a_member(case: Case) -> str:
    """With profile, history, and something hidden."""
    return next(
        member_id
        for member_id, member in sorted(case.end.members.items())
        if member.profile and len(member.history) > 1 and member.hidden
    )


def another_member(case: Case) -> str:
    return max(member_id for member_id, member in case.end.members.items() if member.profile)


def a_deleted_member(case: Case) -> str:
    return min(case.end.departed)


def nobody(_: Case) -> str:
    return "nobody"


def an_older_revision(_: Case, thing: Any) -> Any:
    """A stored post or member of the revision before."""
    return thing._replace(revision=Revision(thing.revision - 1))


def invented_entry(case: Case) -> HistoryEntry:
    return HistoryEntry(PostId(a_post(case)), "share", Micros(1), case.held.post_contexts[a_post(case)].text)


PLANTED_DEFECTS = [
    PlantedDefect("posts lost", "not in the cold tier", without("cold_posts", a_post)),
    PlantedDefect("posts lost", "not in the hot tier", without("hot_posts", a_post)),
    PlantedDefect("posts lost", "without a context", without("post_contexts", a_post)),
    PlantedDefect(
        "posts lost",
        "not in an answer",
        changed_answer(lambda case, scores: {key: score for key, score in scores.items() if key != a_post(case)}),
    ),
    PlantedDefect(
        "posts resurrected",
        "in the cold tier",
        changed_entity("cold_posts", a_deleted_post, lambda case, _: case.held.cold_posts[a_post(case)]),
    ),
    PlantedDefect("posts resurrected", "in the hot tier", changed_entity("hot_posts", a_deleted_post, lambda *_: 1)),
    PlantedDefect(
        "posts resurrected", "in an answer", changed_answer(lambda case, scores: {**scores, a_deleted_post(case): 0.5})
    ),
    PlantedDefect(
        "posts resurrected",
        "as a context",
        changed_entity("post_contexts", a_deleted_post, lambda _, context: replace(context, deleted=False)),
    ),
    PlantedDefect("posts older", "in the cold tier", changed_entity("cold_posts", a_post, an_older_revision)),
    PlantedDefect(
        "posts older", "in the hot tier", changed_entity("hot_posts", a_post, lambda _, revision: revision - 1)
    ),
    PlantedDefect(
        "posts older",
        "its context",
        changed_entity("post_contexts", a_post, lambda _, context: replace(context, text="what it said before")),
    ),
    PlantedDefect(
        "posts older",
        "deleted by mistake",
        changed_entity("post_contexts", a_post, lambda _, context: replace(context, deleted=True)),
    ),
    PlantedDefect(
        "posts older",
        "of another author in the cold tier",
        changed_entity("cold_posts", a_post, lambda _, post: post._replace(author_id="another")),
    ),
    PlantedDefect(
        "posts other vector",
        "another post's in the cold tier",
        changed_entity(
            "cold_posts",
            a_post,
            lambda case, post: post._replace(vector=case.held.cold_posts[another_post(case)].vector),
        ),
    ),
    PlantedDefect(
        "posts other vector",
        "none in the cold tier",
        changed_entity("cold_posts", a_post, lambda _, post: post._replace(vector=None)),
    ),
    PlantedDefect(
        "posts other vector",
        "not a number",
        changed_entity("cold_posts", a_post, lambda _, post: post._replace(vector=post.vector * np.float32("nan"))),
    ),
    PlantedDefect(
        "posts other vector",
        "not of length one",
        changed_entity("cold_posts", a_post, lambda _, post: post._replace(vector=post.vector * np.float32(1.01))),
    ),
    PlantedDefect(
        "posts other vector",
        "another post's in the hot tier",
        changed_answer(lambda case, scores: {**scores, a_post(case): scores[another_post(case)]}),
    ),
    PlantedDefect(
        "posts unknown",
        "in the cold tier",
        changed_entity("cold_posts", nobody, lambda case, _: case.held.cold_posts[a_post(case)]),
    ),
    PlantedDefect("posts unknown", "in the hot tier", changed_entity("hot_posts", nobody, lambda *_: 1)),
    PlantedDefect(
        "posts unknown",
        "a context",
        changed_entity("post_contexts", nobody, lambda case, _: case.held.post_contexts[a_post(case)]),
    ),
    PlantedDefect("posts repeated", "one revision was embedded twice", embedded_twice("post", a_post)),
    PlantedDefect("members lost", "without a context", without("member_contexts", a_member)),
    PlantedDefect("members lost", "not in the cold tier", without("members", a_member)),
    PlantedDefect(
        "members lost",
        "a tombstone",
        changed_entity("members", a_member, lambda _, member: member._replace(deleted=True)),
    ),
    PlantedDefect(
        "members resurrected",
        "in the cold tier",
        changed_entity("members", a_deleted_member, lambda _, member: member._replace(deleted=False)),
    ),
    PlantedDefect(
        "members resurrected",
        "as a context",
        changed_entity("member_contexts", a_deleted_member, lambda _, context: replace(context, deleted=False)),
    ),
    PlantedDefect("members older", "in the cold tier", changed_entity("members", a_member, an_older_revision)),
    PlantedDefect(
        "members older",
        "the profile",
        changed_entity("member_contexts", a_member, lambda _, context: replace(context, headline="of before")),
    ),
    PlantedDefect(
        "members older",
        "an action is missing in the history",
        changed_entity("member_contexts", a_member, lambda _, context: replace(context, history=context.history[1:])),
    ),
    PlantedDefect(
        "members older",
        "an action that nobody has done",
        changed_entity(
            "member_contexts",
            a_member,
            lambda case, context: replace(context, history=[invented_entry(case), *context.history]),
        ),
    ),
    PlantedDefect(
        "members older",
        "the history in another order",
        changed_entity("member_contexts", a_member, lambda _, context: replace(context, history=context.history[::-1])),
    ),
    PlantedDefect(
        "members older",
        "an action twice",
        changed_entity(
            "member_contexts",
            a_member,
            lambda _, context: replace(context, history=[*context.history, context.history[-1]]),
        ),
    ),
    PlantedDefect(
        "members older",
        "a text that the post never had",
        changed_entity(
            "member_contexts",
            a_member,
            lambda _, context: replace(
                context, history=[replace(entry, text="never said") for entry in context.history]
            ),
        ),
    ),
    PlantedDefect(
        "members older",
        "a post that is not hidden any more",
        changed_entity("member_contexts", a_member, lambda _, context: replace(context, hidden=[])),
    ),
    PlantedDefect(
        "members older",
        "a post that was not acted on any more",
        changed_entity("member_contexts", a_member, lambda _, context: replace(context, acted=[])),
    ),
    PlantedDefect(
        "members older",
        "the filter in the cold tier",
        changed_entity("members", a_member, lambda _, member: member._replace(hidden=[])),
    ),
    PlantedDefect(
        "members other vector",
        "another member's",
        changed_entity(
            "members",
            a_member,
            lambda case, member: member._replace(vector=case.held.members[another_member(case)].vector),
        ),
    ),
    PlantedDefect(
        "members other vector",
        "none",
        changed_entity("members", a_member, lambda _, member: member._replace(vector=None)),
    ),
    PlantedDefect(
        "members unknown",
        "a context",
        changed_entity("member_contexts", nobody, lambda case, _: case.held.member_contexts[a_member(case)]),
    ),
    PlantedDefect(
        "members unknown",
        "in the cold tier without a context",
        lambda case: case.held._replace(num_members=case.held.num_members + 1),
    ),
    PlantedDefect("members repeated", "one revision was embedded twice", embedded_twice("member", a_member)),
    PlantedDefect("dead letters of outages", "one", lambda case: case.held._replace(dead_letters=1)),
]


def red_columns(rounds: list[Round]) -> set[str]:
    return {row["figure"] for row in figures(rounds) if not row["holds"]}
