"""Every column of the table of `make chaos` goes red for its own defect, and for no other."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace

from nearline.chaos.expected_state import ExpectedState, expected_state
from nearline.chaos.expected_vectors import ReEncodedVectors
from nearline.chaos.feed import Event, Feed
from nearline.chaos.findings import Findings, Seen
from nearline.chaos.judge import Verdict, verdict
from nearline.chaos.pipeline_state import PipelineState
from nearline.chaos.table import KILL, Round, figures, sentence
from schemas.contexts import HistoryEntry
from schemas.ids import Micros, PostId, Revision
from tests.kit.data.faultless_pipeline import held_after
from tests.kit.packages import make_tiny_package

START = datetime(2026, 1, 5, tzinfo=UTC)
NUM_EVENTS = 600


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
        return _red([Round("random faults", ["kill -9 encode"], 1.0, judged)])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("judge")
    make_tiny_package(folder / "package", dimension=32)
    vectors = ReEncodedVectors(folder / "package")
    events = Feed(1, START).take(NUM_EVENTS)
    return Case(events, expected_state(events), held_after(events, vectors), vectors)


def test_nothing_is_red_where_nothing_is_wrong(case: Case) -> None:
    assert case.red() == set()
    assert case.end.deleted
    assert case.end.departed
    assert len(case.held.members) > 50


@pytest.mark.parametrize("first", [("activity",), ("post",), ("member",), ("activity", "member")], ids="-and-".join)
def test_nothing_is_red_in_whatever_order_the_topics_are_read(case: Case, first: tuple[str, ...]) -> None:
    """A member's history then has entries with other texts, or in another order, and they are right all the same."""
    events = sorted(case.events, key=lambda event: not event["type"].startswith(first))
    assert case.red(held_after(events, case.vectors)) == set()


class Planted(NamedTuple):
    column: str
    what: str
    plant: Callable[[Case], PipelineState]


def _without(name: str, key: Callable[[Case], str]) -> Callable[[Case], PipelineState]:
    """The held part of this name lacks one entity."""

    def plant(case: Case) -> PipelineState:
        part = getattr(case.held, name)
        return _changed(case.held, name, {other: value for other, value in part.items() if other != key(case)})

    return plant


def _with(name: str, key: Callable[[Case], str], change: Callable[[Case, Any], Any]) -> Callable[[Case], PipelineState]:
    """One entity of that part is another; `change` is given what is there, or None."""

    def plant(case: Case) -> PipelineState:
        part = getattr(case.held, name)
        return _changed(case.held, name, {**part, key(case): change(case, part.get(key(case)))})

    return plant


def _changed(held: PipelineState, name: str, part: Any) -> PipelineState:
    """The cold tier counts what it holds."""
    held = held._replace(**{name: part})
    return held._replace(num_members=sum(not member.deleted for member in held.members.values()))


def _in_an_answer(change: Callable[[Case, dict[str, float]], dict[str, float]]) -> Callable[[Case], PipelineState]:
    return lambda case: case.held._replace(answers=[case.held.answers[0], change(case, case.held.answers[1])])


def _twice(kind: Any, key: Callable[[Case], str]) -> Callable[[Case], PipelineState]:
    def plant(case: Case) -> PipelineState:
        embedded = {**case.held.embedded, kind: case.held.embedded[kind].copy()}
        embedded[kind][key(case), 1] += 1
        return case.held._replace(embedded=embedded)

    return plant


def _post(case: Case) -> str:
    return min(case.end.live)


def _other_post(case: Case) -> str:
    return max(case.end.live)


def _deleted_post(case: Case) -> str:
    return min(case.end.deleted)


def _member(case: Case) -> str:
    """With profile, history, and something hidden."""
    return next(
        member_id
        for member_id, member in sorted(case.end.members.items())
        if member.profile and len(member.history) > 1 and member.hidden
    )


def _other_member(case: Case) -> str:
    return max(member_id for member_id, member in case.end.members.items() if member.profile)


def _departed(case: Case) -> str:
    return min(case.end.departed)


def _nobody(_: Case) -> str:
    return "nobody"


def _older(_: Case, thing: Any) -> Any:
    """A stored post or member of the revision before."""
    return thing._replace(revision=Revision(thing.revision - 1))


def _made_up(case: Case) -> HistoryEntry:
    return HistoryEntry(PostId(_post(case)), "share", Micros(1), case.held.post_contexts[_post(case)].text)


PLANTED = [
    Planted("posts lost", "not in the cold tier", _without("cold_posts", _post)),
    Planted("posts lost", "not in the hot tier", _without("hot_posts", _post)),
    Planted("posts lost", "without a context", _without("post_contexts", _post)),
    Planted(
        "posts lost",
        "not in an answer",
        _in_an_answer(lambda case, scores: {key: score for key, score in scores.items() if key != _post(case)}),
    ),
    Planted(
        "posts resurrected",
        "in the cold tier",
        _with("cold_posts", _deleted_post, lambda case, _: case.held.cold_posts[_post(case)]),
    ),
    Planted("posts resurrected", "in the hot tier", _with("hot_posts", _deleted_post, lambda *_: 1)),
    Planted(
        "posts resurrected", "in an answer", _in_an_answer(lambda case, scores: {**scores, _deleted_post(case): 0.5})
    ),
    Planted(
        "posts resurrected",
        "as a context",
        _with("post_contexts", _deleted_post, lambda _, context: replace(context, deleted=False)),
    ),
    Planted("posts older", "in the cold tier", _with("cold_posts", _post, _older)),
    Planted("posts older", "in the hot tier", _with("hot_posts", _post, lambda _, revision: revision - 1)),
    Planted(
        "posts older",
        "its context",
        _with("post_contexts", _post, lambda _, context: replace(context, text="what it said before")),
    ),
    Planted(
        "posts older",
        "deleted by mistake",
        _with("post_contexts", _post, lambda _, context: replace(context, deleted=True)),
    ),
    Planted(
        "posts older",
        "of another author in the cold tier",
        _with("cold_posts", _post, lambda _, post: post._replace(author_id="another")),
    ),
    Planted(
        "posts other vector",
        "another post's in the cold tier",
        _with(
            "cold_posts", _post, lambda case, post: post._replace(vector=case.held.cold_posts[_other_post(case)].vector)
        ),
    ),
    Planted(
        "posts other vector",
        "none in the cold tier",
        _with("cold_posts", _post, lambda _, post: post._replace(vector=None)),
    ),
    Planted(
        "posts other vector",
        "not a number",
        _with("cold_posts", _post, lambda _, post: post._replace(vector=post.vector * np.float32("nan"))),
    ),
    Planted(
        "posts other vector",
        "not of length one",
        _with("cold_posts", _post, lambda _, post: post._replace(vector=post.vector * np.float32(1.01))),
    ),
    Planted(
        "posts other vector",
        "another post's in the hot tier",
        _in_an_answer(lambda case, scores: {**scores, _post(case): scores[_other_post(case)]}),
    ),
    Planted(
        "posts unknown",
        "in the cold tier",
        _with("cold_posts", _nobody, lambda case, _: case.held.cold_posts[_post(case)]),
    ),
    Planted("posts unknown", "in the hot tier", _with("hot_posts", _nobody, lambda *_: 1)),
    Planted(
        "posts unknown",
        "a context",
        _with("post_contexts", _nobody, lambda case, _: case.held.post_contexts[_post(case)]),
    ),
    Planted("posts repeated", "one revision was embedded twice", _twice("post", _post)),
    Planted("members lost", "without a context", _without("member_contexts", _member)),
    Planted("members lost", "not in the cold tier", _without("members", _member)),
    Planted("members lost", "a tombstone", _with("members", _member, lambda _, member: member._replace(deleted=True))),
    Planted(
        "members resurrected",
        "in the cold tier",
        _with("members", _departed, lambda _, member: member._replace(deleted=False)),
    ),
    Planted(
        "members resurrected",
        "as a context",
        _with("member_contexts", _departed, lambda _, context: replace(context, deleted=False)),
    ),
    Planted("members older", "in the cold tier", _with("members", _member, _older)),
    Planted(
        "members older",
        "the profile",
        _with("member_contexts", _member, lambda _, context: replace(context, headline="of before")),
    ),
    Planted(
        "members older",
        "an action is missing in the history",
        _with("member_contexts", _member, lambda _, context: replace(context, history=context.history[1:])),
    ),
    Planted(
        "members older",
        "an action that nobody has done",
        _with(
            "member_contexts",
            _member,
            lambda case, context: replace(context, history=[_made_up(case), *context.history]),
        ),
    ),
    Planted(
        "members older",
        "the history in another order",
        _with("member_contexts", _member, lambda _, context: replace(context, history=context.history[::-1])),
    ),
    Planted(
        "members older",
        "an action twice",
        _with(
            "member_contexts",
            _member,
            lambda _, context: replace(context, history=[*context.history, context.history[-1]]),
        ),
    ),
    Planted(
        "members older",
        "a text that the post never had",
        _with(
            "member_contexts",
            _member,
            lambda _, context: replace(context, history=[replace(one, text="never said") for one in context.history]),
        ),
    ),
    Planted(
        "members older",
        "a post that is not hidden any more",
        _with("member_contexts", _member, lambda _, context: replace(context, hidden=[])),
    ),
    Planted(
        "members older",
        "a post that was not acted on any more",
        _with("member_contexts", _member, lambda _, context: replace(context, acted=[])),
    ),
    Planted(
        "members older",
        "the filter in the cold tier",
        _with("members", _member, lambda _, member: member._replace(hidden=[])),
    ),
    Planted(
        "members other vector",
        "another member's",
        _with(
            "members",
            _member,
            lambda case, member: member._replace(vector=case.held.members[_other_member(case)].vector),
        ),
    ),
    Planted("members other vector", "none", _with("members", _member, lambda _, member: member._replace(vector=None))),
    Planted(
        "members unknown",
        "a context",
        _with("member_contexts", _nobody, lambda case, _: case.held.member_contexts[_member(case)]),
    ),
    Planted(
        "members unknown",
        "in the cold tier without a context",
        lambda case: case.held._replace(num_members=case.held.num_members + 1),
    ),
    Planted("members repeated", "one revision was embedded twice", _twice("member", _member)),
    Planted("dead letters of outages", "one", lambda case: case.held._replace(dead_letters=1)),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.column}: {planted.what}")
def test_a_planted_defect_is_red_in_its_column_and_in_no_other(case: Case, planted: Planted) -> None:
    assert case.red(planted.plant(case)) == {planted.column}


def test_a_vector_where_there_is_nothing_to_encode(case: Case) -> None:
    """A member who has only hidden something."""
    member_id = next(key for key, one in case.held.members.items() if not one.deleted and one.vector is None)
    held = _with("members", lambda _: member_id, lambda case, one: one._replace(vector=_vector_of(case)))(case)
    assert case.red(held) == {"members other vector"}


def _vector_of(case: Case) -> Any:
    return case.held.members[_member(case)].vector


@pytest.mark.parametrize(
    ("column", "tier"),
    [("posts backwards", "cold posts"), ("posts backwards", "hot posts"), ("members backwards", "members")],
)
def test_a_revision_below_one_seen_before(case: Case, column: str, tier: str) -> None:
    entity_id = _post(case) if column.startswith("posts") else _member(case)
    seen: Seen = {}
    assert case.red(seen=seen) == set()
    assert case.red(seen=seen) == set()
    seen[tier, entity_id] += 1
    assert case.red(seen=seen) == {column}


def test_a_process_that_holds_too_many_files(case: Case) -> None:
    assert case.red(handles={"cold"}) == {"handles"}


NOTHING = Findings(*(set[str]() for _ in Findings._fields))
GOOD = Verdict(NOTHING, NOTHING, dead_letters=0, handles=set())


def test_what_takes_too_long_or_is_done_twice_too_often() -> None:
    assert _red([Round(KILL, ["kill -9 encode alone"], 29.0, GOOD, encoded_twice=100)]) == set()
    assert _red([Round(KILL, ["kill -9 encode alone"], 31.0, GOOD)]) == {f"{KILL}: seconds to recover, p99"}
    assert _red([Round(KILL, ["kill -9 encode alone"], 1.0, GOOD, encoded_twice=10**6)]) == {
        "encoded twice by one kill, at most"
    }


def test_every_column_that_has_a_bound_is_shown_to_go_red() -> None:
    bounded = {row["figure"] for row in figures([Round(KILL, ["f"], 1.0, GOOD, 0)]) if row["bound"] is not None}
    elsewhere = {"posts backwards", "members backwards", "handles", "encoded twice by one kill, at most"}
    assert bounded == {planted.column for planted in PLANTED} | elsewhere | {f"{KILL}: seconds to recover, p99"}


def test_the_sentence_names_what_is_wrong(case: Case) -> None:
    judged = verdict(case.end, _without("hot_posts", _post)(case), case.vectors, {}, set())
    assert sentence(judged) == f"posts lost: ['{_post(case)}']; dead letters: 0"


def _red(rounds: list[Round]) -> set[str]:
    return {row["figure"] for row in figures(rounds) if not row["holds"]}
