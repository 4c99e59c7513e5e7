"""No question waits longer than it may, whatever hangs: the other tier answers within the deadline."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Never

import pytest

from indexer.errors import TierLate
from indexer.tiers import StoredPost
from retriever.answer.hot_batches import STUCK_S
from retriever.answer.question import Answer, Question
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Code, Reason
from schemas.embeddings import Vector
from schemas.ids import MemberId, Offset, PostId
from tests.kit.hung_hot_tier import hung
from tests.kit.raw_clients import Gate
from tests.kit.retrievers import (
    LONG_S,
    PARTITION,
    QUERY,
    QueryModel,
    RetrieverSetup,
    asking_member,
    codes_of,
    scored_post,
)
from tests.kit.waiting import until

TIMEOUT_S = 2.0
"""Long enough for a machine that does other things too."""
ON_A_BUSY_MACHINE_S = 10.0
"""There a thread may wake up late. What hangs, hangs for 30 s."""


class SetSeconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9))
    retriever.in_member_feed(asking_member("m"))
    retriever.in_hot(scored_post("b", 0.5))
    yield retriever
    retriever.close()


@pytest.fixture
def clock() -> SetSeconds:
    return SetSeconds()


@pytest.fixture
def clocked(clock: SetSeconds) -> Iterator[RetrieverSetup]:
    """Its deadlines are by the clock."""
    clocked = RetrieverSetup(warm=False, clock=clock)
    clocked.in_hot(scored_post("b", 0.5))
    yield clocked
    clocked.close()


def asked_in_time(retriever: RetrieverSetup, member_id: str = "m") -> Answer:
    began_s = time.monotonic()
    answer = retriever.ask(member_id=member_id, timeout_s=TIMEOUT_S)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S
    return answer


def test_a_cold_tier_that_hangs_is_left_out_and_said(retriever: RetrieverSetup) -> None:
    gate = retriever.cold.tier.search = Gate(retriever.cold.tier.search)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer), answer.partial) == (["b"], [Code.COLD_LATE], True)
    gate.open()
    until(lambda: len(retriever.under_test.kept) == 1, "the late answer")
    answer = asked_in_time(retriever)
    assert (answer.post_ids, answer.partial) == (["a", "b"], False)


@pytest.mark.parametrize(
    ("question", "post_ids"),
    [
        ({"member_id": "m"}, ["c", "b"]),
        ({"post_ids": ("c", "elsewhere")}, ["b"]),
        ({"member_id": "bare"}, ["b"]),
    ],
    ids=["a member that may have changed", "similar posts", "what is trending"],
)
def test_a_look_up_that_hangs_leaves_time_for_the_hot_search(
    clock: SetSeconds, clocked: RetrieverSetup, question: dict[str, Any], post_ids: list[str]
) -> None:
    clocked.in_hot(scored_post("c", 0.7))
    clocked.in_member_feed(asking_member("m"), asking_member("bare", empty=True))
    clocked.trends(b=1)
    clocked.feed_problem = Reason(Code.HOT_BEHIND, "the feed has not reached the end for 20 s")

    def hang(*_: object, timeout_s: float, **__: object) -> Never:
        clock.now += timeout_s
        raise TierLate("for this test")

    for name in ("posts", "members", "position"):
        setattr(clocked.cold.tier, name, hang)
    gate = clocked.cold.tier.search = Gate(clocked.cold.tier.search)
    answer = clocked.ask(**question)
    gate.open()
    assert (answer.post_ids, answer.partial) == (post_ids, True)
    assert Code.COLD_LATE in codes_of(answer)


def test_texts_that_take_too_long_to_encode_leave_time_for_the_hot_search(
    clock: SetSeconds, clocked: RetrieverSetup
) -> None:
    texts: list[str] = []

    class Slow(QueryModel):
        def encode_text(self, text: str) -> Vector:
            clock.now += LONG_S / 20
            texts.append(text)
            return super().encode_text(text)

    clocked.encoder = clocked.under_test._queries._encoder = WarmingEncoder(Slow)
    clocked.warm_up()
    questions = [Question(text=f"text {number}", timeout_s=LONG_S) for number in range(30)]
    answers = clocked.under_test.answer_batch(questions)
    assert 0 < len(texts) < 20
    assert all(answer.post_ids == ["b"] for answer in answers[: len(texts)])
    assert all(codes_of(answer)[0] == Code.MODEL_UNAVAILABLE for answer in answers[len(texts) :])


def test_a_kept_answer_does_not_notice_a_cold_tier_that_hangs(retriever: RetrieverSetup) -> None:
    retriever.ask(member_id="m")
    for name in ("search", "posts", "members", "position"):
        setattr(retriever.cold.tier, name, Gate(getattr(retriever.cold.tier, name)))
    retriever.in_hot(scored_post("c", 0.7))
    answer = asked_in_time(retriever)
    assert (answer.post_ids, answer.partial) == (["a", "c", "b"], False)


def test_a_hot_tier_that_hangs_is_left_out_and_said(retriever: RetrieverSetup) -> None:
    gate = retriever.hot.tier.search = Gate(retriever.hot.tier.search)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer), answer.partial) == (["a"], [Code.HOT_UNAVAILABLE], True)
    time.sleep(STUCK_S)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer)) == (["a"], [Code.HOT_UNAVAILABLE]), "asked anew: what was kept is older"
    gate.open()
    until(lambda: retriever.under_test._hot_batches._began_s is None, "the hot tier to be well again")
    assert asked_in_time(retriever).post_ids == ["a", "b"]


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_a_hot_tier_that_begins_to_hang_leaves_time_to_ask_anew_for_what_was_kept(
    retriever: RetrieverSetup, member_id: str
) -> None:
    def with_time_only(posts: Sequence[PostId], *, timeout_s: float) -> list[StoredPost | None]:
        if timeout_s < TIMEOUT_S / 10:
            raise TierLate("for this test")
        found: list[StoredPost | None] = look_up(posts, timeout_s=timeout_s)
        return found

    look_up, retriever.cold.tier.posts = retriever.cold.tier.posts, with_time_only
    retriever.trends(a=1)
    retriever.ask(member_id=member_id)
    gate = retriever.hot.tier.search = Gate(retriever.hot.tier.search)
    answer = asked_in_time(retriever, member_id)
    gate.open()
    assert (answer.post_ids, answer.partial) == (["a"], True)
    assert Code.HOT_UNAVAILABLE in codes_of(answer)


def test_questions_of_a_batch_wait_so_long_for_a_hot_tier_that_hangs_that_each_can_ask_anew(
    retriever: RetrieverSetup,
) -> None:
    retriever.ask(member_id="m")
    gate = retriever.hot.tier.search = Gate(retriever.hot.tier.search)
    questions = [Question(vector_D=QUERY, timeout_s=TIMEOUT_S), Question(member_id=MemberId("m"), timeout_s=TIMEOUT_S)]
    answers = retriever.under_test.answer_batch(questions)
    gate.open()
    assert [(answer.post_ids, codes_of(answer)) for answer in answers] == [(["a"], [Code.HOT_UNAVAILABLE])] * 2


def test_when_both_hang_it_is_said_in_time(retriever: RetrieverSetup) -> None:
    gates = [Gate(retriever.hot.tier.search), Gate(retriever.cold.tier.search)]
    retriever.hot.tier.search, retriever.cold.tier.search = gates
    began_s = time.monotonic()
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(member_id="m", timeout_s=TIMEOUT_S)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S
    for gate in gates:
        gate.open()


def test_a_hot_tier_that_holds_everything_and_hangs_leaves_what_is_trending_to_the_cold_one(
    retriever: RetrieverSetup,
) -> None:
    retriever.hot.tier.begin({PARTITION: Offset(0)})
    retriever.in_both(scored_post("c"), scored_post("gone", revision=2, deleted=True))
    retriever.trends(c=1, gone=2)
    answer = asked_in_time(retriever, "nobody")
    assert (answer.post_ids, answer.partial) == (["c"], False)
    gate = retriever.hot.tier.search = Gate(retriever.hot.tier.search)
    for _ in range(2):
        answer = asked_in_time(retriever, "nobody")
        assert (answer.post_ids, answer.partial) == (["c"], True)
        assert Code.HOT_UNAVAILABLE in codes_of(answer)
    retriever.cold.fails = True
    retriever.in_member_feed(asking_member("bare", empty=True))
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(member_id="bare", timeout_s=TIMEOUT_S)
    gate.open()
    until(lambda: retriever.under_test._hot_batches._began_s is None, "the hot tier to be well again")
    answer = asked_in_time(retriever, "bare")
    assert (answer.post_ids, answer.partial) == (["c"], False), "the cold tier has nothing to add"


@pytest.fixture
def hanging() -> Iterator[RetrieverSetup]:
    """The device of its hot tier hangs while a search has the lock that all look-ups need."""
    hanging = RetrieverSetup(warm=False, real_hot_tier=True)
    hanging.in_member_feed(asking_member("m"))
    hanging.in_cold(scored_post("a", 0.9), scored_post("b", 0.8, author="b's"))
    with hung(hanging.hot.tier):
        yield hanging
    hanging.close()


@pytest.mark.parametrize(
    ("question", "post_ids"),
    [
        ({"post_ids": ("a",)}, ["b"]),
        ({"member_id": MemberId("m"), "columns": frozenset({"author"})}, ["a", "b"]),
    ],
    ids=["similar posts", "columns"],
)
def test_a_look_up_leaves_a_hot_tier_whose_lock_is_held_to_the_cold_one(
    hanging: RetrieverSetup, question: dict[str, Any], post_ids: list[str]
) -> None:
    began_s = time.monotonic()
    answer = hanging.ask(timeout_s=TIMEOUT_S, **question)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S
    assert (answer.post_ids, answer.partial) == (post_ids, True)
    assert Code.HOT_UNAVAILABLE in codes_of(answer)
    if answer.authors is not None:
        assert answer.authors == ["author", "b's"]


def test_vectors_of_a_hot_tier_whose_lock_is_held_are_refused_in_time(hanging: RetrieverSetup) -> None:
    began_s = time.monotonic()
    with pytest.raises(RetrieverUnavailable, match="the hot tier cannot answer now"):
        hanging.under_test.vectors([PostId("a")], TIMEOUT_S)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S


def test_hot_posts_of_a_hot_tier_whose_lock_is_held_are_refused_in_time(
    hanging: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriever.answer.retriever._LOOK_S", 0.1)
    with pytest.raises(RetrieverUnavailable, match="the hot tier cannot answer now; try again"):
        list(hanging.under_test.hot_posts())
