"""The cold tier is asked once for equal questions, late answers are kept, and idle time is used to make some ahead."""

import time
from collections.abc import Iterator
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest

from indexer.errors import TierLate, TierUnavailable
from indexer.id_table import IdTable
from indexer.tiers import NO_FILTERS, ColdHits, Offsets
from retriever.answer.cold import cold_searches
from retriever.answer.cold.cold_answers import ColdAnswer, ColdAnswerMaker
from retriever.answer.cold.cold_searches import GIVE_UP_S, ColdJob, ColdSearch, ColdSearches
from retriever.answer.cold.kept_answers import Asked, KeptAnswers, Version
from retriever.answer.hot_state import HotState
from schemas.ids import Offset, Partition, PostId, Revision
from tests.kit.waiting import until


class StoppedTier:
    """Answers with a post named like the vector's only number. Waits in each search until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = Event()
        self.asked: list[int] = []
        self.timeouts: list[float] = []
        self.failure: Exception | None = None
        self._lock = Lock()

    def search(self, vector_D: Any, k: int, filters: Any, *, timeout_s: float) -> ColdHits:
        with self._lock:
            self.asked.append(int(vector_D[0]))
            self.timeouts.append(timeout_s)
        self.may_go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        scores, revisions = np.ones(1, np.float32), np.ones(1, np.int64)
        return ColdHits([PostId(str(int(vector_D[0])))], scores, revisions, {Partition(0): Offset(10)})


class Setup:
    def __init__(self, num_threads: int = 1) -> None:
        self.tier = StoppedTier()
        self.ids = IdTable()
        self.kept = KeptAnswers(1_000_000)
        self.floor_now: Offsets = {Partition(0): Offset(10)}
        self.tier_is_left_alone = False
        self.searches = ColdSearches(
            self.tier,  # type: ignore[arg-type]
            self.kept,
            ColdAnswerMaker(self.ids),
            HotState(self, lambda: None),  # type: ignore[arg-type]
            refuses=lambda: self.tier_is_left_alone,
            num_threads=num_threads,
        )

    def ask(self, search: ColdSearch, timeout_s: float) -> ColdJob:
        (job,) = self.searches.ask_together([search], timeout_s)
        return job

    def floor(self) -> Offsets:
        """Of the hot tier."""
        return self.floor_now

    def close(self) -> None:
        self.tier.may_go_on.set()
        self.searches.close()

    def ids_of(self, answer: ColdAnswer) -> list[PostId]:
        return self.ids.ids(answer.columns.numbers_C)

    def holds(self, number: int, revision: int = 1) -> bool:
        search = cold_search(number, revision)
        return self.kept.peek(search.asked, search.version, 1, self.floor_now) is not None


def cold_search(number: int, revision: int = 1) -> ColdSearch:
    asked = Asked(f"m{number}", b"")
    return ColdSearch(asked, Version(Revision(revision)), np.array([number], np.float32), NO_FILTERS, 2)


def soon() -> float:
    return time.monotonic() + 20


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    setup.close()


def test_two_equal_questions_at_the_same_time_ask_once(setup: Setup) -> None:
    jobs = [setup.ask(cold_search(7), 1.0) for _ in range(2)]
    until(lambda: setup.tier.asked == [7], "the search to begin")
    jobs.append(setup.ask(cold_search(7), 1.0))
    setup.tier.may_go_on.set()
    answers = [setup.searches.wait(job, soon()) for job in jobs]
    assert [setup.ids_of(answer) for answer in answers] == [["7"]] * 3
    assert setup.tier.asked == [7]
    assert setup.holds(7)


def test_a_tier_that_is_left_alone_makes_nobody_wait_for_the_searches_before(setup: Setup) -> None:
    """The only thread still waits for an earlier answer."""
    before = setup.ask(cold_search(7), 1.0)
    until(lambda: setup.tier.asked == [7], "the search to begin")
    setup.tier_is_left_alone = True
    for number in (7, 8):
        job = setup.ask(cold_search(number), 1.0)
        with pytest.raises(TierUnavailable, match="left alone"):
            setup.searches.wait(job, soon())
    setup.tier_is_left_alone = False
    setup.tier.may_go_on.set()
    assert setup.ids_of(setup.searches.wait(before, soon())) == ["7"]


def test_another_revision_or_a_longer_answer_is_another_question(setup: Setup) -> None:
    setup.tier.may_go_on.set()
    longer = cold_search(7)._replace(limit=3)
    jobs = [setup.ask(search, 1.0) for search in (cold_search(7), cold_search(7, revision=2), longer)]
    for job in jobs:
        setup.searches.wait(job, soon())
    assert setup.tier.asked == [7, 7, 7]


def test_an_answer_that_comes_too_late_is_kept_for_the_next_question(setup: Setup) -> None:
    job = setup.ask(cold_search(7), 0.01)
    with pytest.raises(TierLate):
        setup.searches.wait(job, time.monotonic() + 0.01)
    assert setup.tier.timeouts == [GIVE_UP_S]
    setup.tier.may_go_on.set()
    until(lambda: setup.holds(7), "the late answer")


def test_a_long_deadline_counts(setup: Setup) -> None:
    setup.ask(cold_search(7), GIVE_UP_S + 5)
    until(lambda: setup.tier.timeouts == [GIVE_UP_S + 5], "the search to begin")


def test_a_long_deadline_counts_also_for_who_joins_a_search_with_less_time(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = setup.tier.search

    def late_if_short(*query: Any, timeout_s: float) -> ColdHits:
        hits = search(*query, timeout_s=timeout_s)
        if timeout_s <= GIVE_UP_S:
            raise TierLate("for this test")
        return hits

    monkeypatch.setattr(setup.tier, "search", late_if_short)
    setup.ask(cold_search(7), 0.01)
    until(lambda: setup.tier.asked == [7], "the search to begin")
    patient = setup.ask(cold_search(7), 20.0)
    setup.tier.may_go_on.set()
    assert setup.ids_of(setup.searches.wait(patient, soon())) == ["7"]
    assert setup.tier.asked == [7, 7]


def test_an_answer_that_is_outdated_already_is_not_kept(setup: Setup) -> None:
    setup.floor_now = {Partition(0): Offset(11)}
    setup.tier.may_go_on.set()
    setup.searches.wait(setup.ask(cold_search(7), 1.0), soon())
    assert len(setup.kept) == 0


@pytest.mark.parametrize("failure", [TierUnavailable("down"), ZeroDivisionError("a mistake")])
def test_a_failure_reaches_all_who_wait_and_the_next_one_asks_again(setup: Setup, failure: Exception) -> None:
    setup.tier.failure = failure
    jobs = [setup.ask(cold_search(7), 1.0) for _ in range(2)]
    setup.tier.may_go_on.set()
    for job in jobs:
        with pytest.raises(TierUnavailable):
            setup.searches.wait(job, soon())
    setup.tier.failure = None
    assert setup.ids_of(setup.searches.wait(setup.ask(cold_search(7), 1.0), soon())) == ["7"]


def test_several_searches_run_at_the_same_time_and_not_more() -> None:
    setup = Setup(num_threads=3)
    jobs = [setup.ask(cold_search(number), 1.0) for number in range(5)]
    until(lambda: len(setup.tier.asked) == 3, "three searches")
    assert sorted(setup.tier.asked) == [0, 1, 2]
    setup.tier.may_go_on.set()
    assert [setup.ids_of(setup.searches.wait(job, soon())) for job in jobs] == [[str(number)] for number in range(5)]
    assert len(setup.searches._threads) == 3
    setup.close()


def test_a_question_that_gave_up_in_the_queue_lets_the_others_pass_and_is_made_ahead(setup: Setup) -> None:
    running = setup.ask(cold_search(1), 1.0)
    until(lambda: setup.tier.asked == [1], "the first search to begin")
    gave_up = setup.ask(cold_search(2), 0.01)
    with pytest.raises(TierLate):
        setup.searches.wait(gave_up, time.monotonic())
    others = [setup.ask(cold_search(number), 1.0) for number in (3, 4)]
    setup.tier.may_go_on.set()
    for job in (running, *others):
        setup.searches.wait(job, soon())
    until(lambda: setup.holds(2), "the answer for the next question")
    assert setup.tier.asked == [1, 3, 4, 2]


def test_ahead_is_made_only_while_nobody_waits(setup: Setup) -> None:
    setup.ask(cold_search(1), 1.0)
    until(lambda: setup.tier.asked == [1], "the first search to begin")
    setup.searches.make_ahead(cold_search(8).asked, lambda: cold_search(8))
    job = setup.ask(cold_search(2), 1.0)
    setup.tier.may_go_on.set()
    setup.searches.wait(job, soon())
    until(lambda: setup.holds(8), "the answer that is made ahead")
    assert setup.tier.asked == [1, 2, 8]


def test_of_a_member_that_changes_often_the_newest_is_made_ahead(setup: Setup) -> None:
    setup.ask(cold_search(1), 1.0)
    until(lambda: setup.tier.asked == [1], "the first search to begin")
    for revision in (2, 3):
        setup.searches.make_ahead(cold_search(8).asked, lambda revision=revision: cold_search(8, revision))  # type: ignore[misc]
    setup.tier.may_go_on.set()
    until(lambda: setup.holds(8, revision=3), "the newest answer")
    assert setup.tier.asked == [1, 8]


def test_ahead_makes_nothing_that_is_there_already_or_not_needed(setup: Setup) -> None:
    setup.tier.may_go_on.set()
    setup.searches.wait(setup.ask(cold_search(7), 1.0), soon())
    setup.searches.make_ahead(cold_search(7).asked, lambda: cold_search(7))
    setup.searches.make_ahead(cold_search(8).asked, lambda: cold_search(8))
    until(lambda: setup.holds(8), "the second one")
    assert setup.tier.asked == [7, 8]
    setup.floor_now = {Partition(0): Offset(0)}
    built = Event()
    setup.searches.make_ahead(cold_search(9).asked, lambda: [built.set(), cold_search(9)][1])  # type: ignore[return-value, func-returns-value]
    until(built.is_set, "its turn")
    setup.searches.wait(setup.ask(cold_search(1), 1.0), soon())
    assert setup.tier.asked == [7, 8, 1], "the hot tier holds everything"


def test_a_question_joins_what_is_being_made_ahead(setup: Setup) -> None:
    setup.searches.make_ahead(cold_search(7).asked, lambda: cold_search(7))
    until(lambda: setup.tier.asked == [7], "the search to begin")
    job = setup.ask(cold_search(7), 1.0)
    setup.tier.may_go_on.set()
    assert setup.ids_of(setup.searches.wait(job, soon())) == ["7"]
    assert setup.tier.asked == [7]


def test_what_waits_to_be_made_ahead_is_bounded(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_searches, "MAX_AHEAD", 2)
    setup.ask(cold_search(1), 1.0)
    until(lambda: setup.tier.asked == [1], "the first search to begin")
    for number in (5, 6, 7):
        setup.searches.make_ahead(cold_search(number).asked, lambda number=number: cold_search(number))  # type: ignore[misc]
    setup.tier.may_go_on.set()
    until(lambda: setup.holds(7), "the last one")
    assert setup.tier.asked == [1, 6, 7]


def test_a_search_that_cannot_be_built_ends_no_thread(setup: Setup) -> None:
    setup.tier.may_go_on.set()
    setup.searches.make_ahead(cold_search(8).asked, lambda: cold_search(1 // 0))
    assert setup.ids_of(setup.searches.wait(setup.ask(cold_search(7), 1.0), soon())) == ["7"]
