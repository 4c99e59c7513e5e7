"""When a tier is left alone, and that it never is for good."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.brute_force import BruteColdTier
from indexer.cold.breaker import FAILURES_IN_A_ROW, MAX_SILENT_S, PROBE_EVERY_S, SILENT_S, Breaker
from indexer.cold.guarded_reader import GuardedColdReader
from indexer.cold.socket.client import RemoteColdTier
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.tiers import ColdQuery
from schemas.ids import MemberId, PostId
from tests.kit.children.cold_owner import NUM_POSTS
from tests.kit.data.embeddings import DIMENSION, index_records, post_embedding, vectors
from tests.kit.owners import cold_owner
from tests.kit.waiting import until

QUERY: Final = vectors(1)[0]
SHORT_S: Final = 0.05
LONG_S: Final = 5.0


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(clock: Seconds) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.begin() == "ask"
        breaker.failed()


def test_after_failures_in_a_row_one_probe_is_let_through_at_a_time(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, FAILURES_IN_A_ROW)
    assert breaker.begin() == "refuse"
    for _ in range(3):
        clock.now += 1.1 * PROBE_EVERY_S
        assert [breaker.begin() for _ in range(3)] == ["probe", "refuse", "refuse"]
        breaker.failed()
        assert breaker.begin() == "refuse"
    clock.now += 1.1 * PROBE_EVERY_S
    assert breaker.begin() == "probe"
    breaker.answered(0.03)
    assert breaker.begin() == "ask"


def test_an_answer_in_between_begins_the_row_anew(breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker, FAILURES_IN_A_ROW - 1)
        assert breaker.begin() == "ask"
        breaker.answered(0.03)


def test_calls_that_wait_in_vain_are_a_silence_and_any_of_them_ends_it(breaker: Breaker, clock: Seconds) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        assert breaker.begin() == "ask"
    clock.now += 1.1 * SILENT_S
    assert breaker.begin() == "refuse"
    clock.now += 10 * PROBE_EVERY_S
    assert breaker.begin() == "refuse", "these calls are probes enough"
    breaker.answered(SILENT_S)
    assert breaker.begin() == "ask"


def test_deadlines_that_are_missed_are_a_silence_too(breaker: Breaker, clock: Seconds) -> None:
    """Each call waits for a moment only."""
    for _ in range(FAILURES_IN_A_ROW):
        assert breaker.begin() == "ask"
        clock.now += 1.1 * SILENT_S / FAILURES_IN_A_ROW
        breaker.late(1.1 * SILENT_S / FAILURES_IN_A_ROW)
    assert breaker.begin() == "refuse"
    clock.now += 1.1 * PROBE_EVERY_S
    assert breaker.begin() == "probe"
    breaker.late(LONG_S)
    assert breaker.begin() == "refuse"


def test_few_late_calls_with_long_pauses_between_are_none(breaker: Breaker, clock: Seconds) -> None:
    for _ in range(FAILURES_IN_A_ROW - 1):
        assert breaker.begin() == "ask"
        breaker.late(LONG_S)
        clock.now += 3600
    assert breaker.begin() == "ask"
    breaker.answered(0.03)
    assert breaker.begin() == "ask"


def test_calls_without_the_time_for_an_answer_are_no_silence(breaker: Breaker, clock: Seconds) -> None:
    """Otherwise one client that asks with a deadline of a millisecond would keep the cold tier from all others."""
    assert breaker.begin() == "ask"
    breaker.answered(0.02)
    for _ in range(1000):
        assert breaker.begin() == "ask"
        breaker.late(0.001)
        clock.now += 0.01
    for _ in range(FAILURES_IN_A_ROW):
        assert breaker.begin() == "ask"
        breaker.late(0.02)
    clock.now += 1.1 * SILENT_S
    assert breaker.begin() == "refuse"


def test_a_tier_that_answers_some_calls_is_never_left_alone(breaker: Breaker, clock: Seconds) -> None:
    for _ in range(50):
        for _ in range(20):
            assert breaker.begin() == "ask"
        clock.now += 0.9 * SILENT_S
        for _ in range(19):
            breaker.late(0.9 * SILENT_S)
        breaker.answered(0.9 * SILENT_S)


def test_a_slow_tier_may_be_silent_for_longer(breaker: Breaker, clock: Seconds) -> None:
    assert breaker.begin() == "ask"
    breaker.answered(1.0)
    for _ in range(FAILURES_IN_A_ROW):
        assert breaker.begin() == "ask"
        breaker.late(LONG_S)
    clock.now += 2.9
    assert breaker.begin() == "ask"
    clock.now += 0.2
    assert breaker.begin() == "refuse"


EVENTS = st.lists(
    st.one_of(
        st.just("begin"),
        st.sampled_from(["answered", "late", "too short", "failed"]),
        st.floats(0.01, 2.0),
    ),
    max_size=80,
)


@given(events=EVENTS)
def test_whatever_happens_it_asks_again_soon(events: list[str | float]) -> None:
    clock = Seconds()
    breaker = Breaker(clock)
    in_flight = 0
    for event in events:
        if isinstance(event, float):
            clock.now += event
        elif event == "begin":
            refuses = breaker.refuses()
            decision = breaker.begin()
            assert refuses == (decision == "refuse")
            assert decision != "probe" or not in_flight, "one call at a time finds out"
            in_flight += decision != "refuse"
        elif in_flight:
            in_flight -= 1
            if event == "answered":
                breaker.answered(0.03)
                assert breaker.begin() == "ask", "a tier that answers is asked"
                in_flight += 1
            elif event in ("late", "too short"):
                breaker.late(LONG_S if event == "late" else 0.001)
            else:
                breaker.failed()
    # All that is in flight ends badly.
    for _ in range(in_flight):
        breaker.late(LONG_S)
    clock.now += MAX_SILENT_S
    if breaker.begin() == "refuse":
        clock.now += 1.1 * PROBE_EVERY_S
        assert breaker.begin() == "probe"
    breaker.answered(0.03)
    assert breaker.begin() == "ask"


class Gated(BruteColdTier):
    """Answers when its gate is open, and keeps the deadlines of those who wait."""

    def __init__(self) -> None:
        super().__init__(DIMENSION)
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[float | None] = []
        self.error: Exception | None = None

    def count(self, *_: object, timeout_s: float | None = None) -> int:
        self.asked.append(timeout_s)
        if not self.gate.wait(timeout_s):
            raise TierLate("for this test")
        if self.error is not None:
            raise self.error
        return 7


@pytest.fixture
def gated() -> Iterator[Gated]:
    tier = Gated()
    yield tier
    tier.gate.set()


def ask(reader: GuardedColdReader, timeout_s: float | None = SHORT_S) -> int | str:
    try:
        return reader.count("post", timeout_s=timeout_s)
    except TierLate:
        return "late"
    except TierUnavailable:
        return "refused"


def test_a_frozen_tier_costs_nobody_time_and_the_probe_finds_it_again(gated: Gated) -> None:
    reader = GuardedColdReader(gated, probe_s=30)
    gated.gate.clear()
    until(lambda: ask(reader) == "refused", "the tier to be left alone")
    num_asked = len(gated.asked)
    until(lambda: ask(reader) != "refused" or len(gated.asked) > num_asked, "the probe")
    assert gated.asked[-1] == 30, "the probe waits for longer than its caller"
    assert [ask(reader) for _ in range(20)] == ["refused"] * 20
    gated.gate.set()
    until(lambda: ask(reader) == 7, "the tier to be asked again")


class NoThread(threading.Thread):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_a_probe_for_which_there_is_no_thread_is_followed_by_another(
    gated: Gated, breaker: Breaker, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = GuardedColdReader(gated, breaker)
    gated.error = TierUnavailable("for this test")
    assert [ask(reader) for _ in range(FAILURES_IN_A_ROW)] == ["refused"] * FAILURES_IN_A_ROW
    gated.error = None
    clock.now += 1.1 * PROBE_EVERY_S
    with monkeypatch.context() as full:
        full.setattr("indexer.cold.guarded_reader.Thread", NoThread)
        with pytest.raises(TierUnavailable, match="no thread can be started"):
            reader.count("post")
    clock.now += 1.1 * PROBE_EVERY_S
    assert ask(reader, 30) == 7


def test_a_slow_tier_is_not_cut_off(gated: Gated) -> None:
    """It takes longer than every caller waits, but the probe does not, so the tier is asked again and again."""
    reader = GuardedColdReader(gated, probe_s=30)
    gated.gate.clear()
    until(lambda: ask(reader) == "refused", "the tier to be left alone")
    for _ in range(3):
        gated.gate.clear()
        num_asked = len(gated.asked)
        until(lambda: ask(reader) != "refused" and len(gated.asked) > num_asked, "a probe")  # noqa: B023
        timer = threading.Timer(2 * SHORT_S, gated.gate.set)
        timer.start()
        timer.join()
        until(lambda: ask(reader) == 7, "a call to be made")


def test_a_refusal_is_an_answer_and_a_bug_is_a_failure(gated: Gated) -> None:
    reader = GuardedColdReader(gated)
    gated.error = TierRefused("for this test")
    for _ in range(2 * FAILURES_IN_A_ROW):
        with pytest.raises(TierRefused):
            reader.count("post")
    gated.error = RuntimeError("a bug")
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(RuntimeError):
            reader.count("post")
    with pytest.raises(TierUnavailable, match="several times in a row"):
        reader.count("post")


def test_nobody_waits_for_the_position_of_a_tier_that_is_left_alone(gated: Gated) -> None:
    reader = GuardedColdReader(gated)
    gated.error = TierUnavailable("for this test")
    until(lambda: ask(reader) == "refused" and reader.refuses(), "the tier to be left alone")
    with pytest.raises(TierUnavailable, match="several times in a row"):
        reader.position()
    gated.error = None
    until(lambda: ask(reader) == 7, "the tier to be asked again")
    assert reader.position() == {}


def test_all_calls_go_through_and_come_back_unchanged() -> None:
    tier = BruteColdTier(DIMENSION)
    tier.write("post", index_records(post_embedding("p1")))
    reader = GuardedColdReader(tier)
    assert reader.search(QUERY, 5).post_ids == tier.search(QUERY, 5).post_ids == ["p1"]
    assert [hits.post_ids for hits in reader.search_batch([ColdQuery(QUERY, 5)])] == [["p1"]]
    assert reader.posts([PostId("p1")], with_vectors=True) == tier.posts([PostId("p1")], with_vectors=True)
    assert reader.members([MemberId("m1")]) == [None]
    assert list(reader.scroll_posts()) == list(tier.scroll_posts())
    assert (reader.count("post"), reader.position()) == (1, {})


def test_a_real_process_that_is_frozen_and_goes_on(tmp_path: Path) -> None:
    with (
        cold_owner(tmp_path) as owner,
        contextlib.closing(GuardedColdReader(RemoteColdTier(owner.path, timeout_s=60))) as reader,
    ):
        assert reader.search(QUERY, 5, timeout_s=30).position == {0: NUM_POSTS}
        with owner.frozen():
            until(lambda: _search(reader) == "refused", "the tier to be left alone")
            outcomes = [_search(reader) for _ in range(200)]
            # A probe may be among them, and its caller waits in vain.
            assert outcomes.count("refused") > 190, "nobody waits for a tier that is left alone"
        until(lambda: _search(reader) == "answered", "the tier to be asked again")


def _search(reader: GuardedColdReader, timeout_s: float = 4 * SHORT_S) -> str:
    try:
        reader.search(QUERY, 5, timeout_s=timeout_s)
    except TierLate:
        return "late"
    except TierUnavailable:
        return "refused"
    return "answered"
