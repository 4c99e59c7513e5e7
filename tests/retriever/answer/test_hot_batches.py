"""Questions that wait are searched together, and none waits longer than its deadline."""

import time
from collections.abc import Iterator, Sequence
from threading import Event, Thread

import numpy as np
import pytest

from indexer.errors import TierLate, TierUnavailable
from indexer.tiers import NO_FILTERS, HotAnswer, HotQuery
from retriever.answer.hot_batches import MAX_BATCH, STUCK_S, HotBatches
from tests.kit.waiting import until

NOBODY = np.empty(0, np.int32)


def query(number: int) -> HotQuery:
    return HotQuery(np.zeros(1, np.float32), number, NO_FILTERS, NOBODY)


class StoppedTier:
    """Answers each query with its k as the only hit. Waits in each search until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = Event()
        self.batches: list[list[int]] = []
        self.failure: Exception | None = None

    def search(self, queries: Sequence[HotQuery]) -> list[HotAnswer]:
        self.batches.append([query.k for query in queries])
        self.may_go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        none = np.empty(0, np.int64)
        return [HotAnswer(np.array([query.k], np.int32), none.astype(np.float32), none, none, {}) for query in queries]


@pytest.fixture
def tier() -> Iterator[StoppedTier]:
    tier = StoppedTier()
    yield tier
    tier.may_go_on.set()


@pytest.fixture
def batches(tier: StoppedTier) -> Iterator[HotBatches]:
    batches = HotBatches(tier)  # type: ignore[arg-type]
    yield batches
    batches.close()


def soon() -> float:
    return time.monotonic() + 20


def test_what_waits_while_a_search_runs_is_searched_together(tier: StoppedTier, batches: HotBatches) -> None:
    pending = [batches.submit(query(0))]
    until(lambda: tier.batches == [[0]], "the first search to begin alone")
    pending += [batches.submit(query(number)) for number in range(1, MAX_BATCH + 3)]
    tier.may_go_on.set()
    answers = [search.wait(soon()) for search in pending]
    assert [answer.numbers.tolist() for (answer,) in answers] == [[number] for number in range(MAX_BATCH + 3)]
    assert tier.batches == [[0], list(range(1, MAX_BATCH + 1)), [MAX_BATCH + 1, MAX_BATCH + 2]]


def test_many_threads_each_get_their_own_answer(tier: StoppedTier, batches: HotBatches) -> None:
    tier.may_go_on.set()
    got: dict[int, list[int]] = {}

    def ask(first: int) -> None:
        for number in range(first, first + 200):
            got[number] = batches.submit(query(number)).wait(soon())[0].numbers.tolist()

    threads = [Thread(target=ask, args=(first,)) for first in range(0, 1600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: [number] for number in range(1600)}


def test_a_tier_that_hangs_holds_nobody_beyond_the_deadline(tier: StoppedTier, batches: HotBatches) -> None:
    running = batches.submit(query(1))
    until(lambda: tier.batches == [[1]], "the first search to begin alone")
    waiting = batches.submit(query(2))
    for search in (running, waiting):
        with pytest.raises(TierLate):
            search.wait(time.monotonic() + 0.02)
    after = batches.submit(query(3))
    tier.may_go_on.set()
    assert after.wait(soon())[0].numbers.tolist() == [3]
    assert tier.batches == [[1], [3]], "nobody waits for 2 any more"


def test_after_a_while_nobody_waits_for_a_tier_that_hangs(tier: StoppedTier) -> None:
    now = [0.0]
    batches = HotBatches(tier, clock=lambda: now[0])  # type: ignore[arg-type]
    first = batches.submit(query(1))
    until(lambda: bool(tier.batches), "the search to begin")
    now[0] = STUCK_S
    batches.submit(query(2))
    now[0] = STUCK_S + 0.1
    with pytest.raises(TierUnavailable, match="hangs"):
        batches.submit(query(3))
    tier.may_go_on.set()
    assert first.wait(now[0] + 20)[0].numbers.tolist() == [1]
    until(lambda: batches._began_s is None, "the tier to be well again")
    assert batches.submit(query(4)).wait(now[0] + 20)[0].numbers.tolist() == [4]
    batches.close()


def test_a_tier_whose_searches_always_take_long_does_not_hang(
    tier: StoppedTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    search = tier.search

    def slow(queries: Sequence[HotQuery]) -> list[HotAnswer]:
        now[0] += 1.0
        return search(queries)

    monkeypatch.setattr(tier, "search", slow)
    batches = HotBatches(tier, clock=lambda: now[0])  # type: ignore[arg-type]
    tier.may_go_on.set()
    for _ in range(50):
        batches.submit(query(1)).wait(now[0] + 20)
        until(lambda: batches._began_s is None, "the thread to be free")
    tier.may_go_on.clear()
    batches.submit(query(2))
    until(lambda: tier.batches[-1] == [2], "the search to begin")
    now[0] += 1.5
    usual = batches.submit(query(3))
    now[0] += 1.5
    with pytest.raises(TierUnavailable, match="hangs"):
        batches.submit(query(4))
    tier.may_go_on.set()
    assert usual.wait(now[0] + 20)[0].numbers.tolist() == [3]
    batches.close()


def test_a_thread_that_could_not_be_started_is_tried_again(
    tier: StoppedTier, batches: HotBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThread(Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    tier.may_go_on.set()
    with monkeypatch.context() as full:
        full.setattr("retriever.answer.hot_batches.worker", lambda work, name: NoThread(target=work, name=name))
        with pytest.raises(RuntimeError, match="new thread"):
            batches.submit(query(1))
    assert batches.submit(query(2)).wait(time.monotonic() + 5)[0].numbers.tolist() == [2]


@pytest.mark.parametrize("failure", [TierUnavailable("the device is gone"), ZeroDivisionError("a mistake")])
def test_a_failure_reaches_all_of_the_batch_and_the_next_one_is_tried(
    tier: StoppedTier, batches: HotBatches, failure: Exception
) -> None:
    tier.failure = failure
    tier.may_go_on.set()
    for _ in range(2):
        with pytest.raises(TierUnavailable):
            batches.submit(query(1)).wait(soon())
        until(lambda: batches._began_s is None, "the thread to be free, or it may seem to hang")
    tier.failure = None
    assert batches.submit(query(2)).wait(soon())[0].numbers.tolist() == [2]


def test_it_knows_how_long_a_search_takes_lately(tier: StoppedTier) -> None:
    tier.may_go_on.set()
    now = [0.0]

    def tick() -> float:
        now[0] += 0.5
        return now[0]

    batches = HotBatches(tier, clock=tick)  # type: ignore[arg-type]
    for _ in range(50):
        batches.submit(query(1)).wait(soon())
    assert 0.4 < batches.typical_s < 2.0
    batches.close()
