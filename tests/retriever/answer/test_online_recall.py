"""The recall of live answers: what is measured, at what cost, and that nobody waits for it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from indexer.errors import TierUnavailable
from indexer.tiers import NO_FILTERS, ColdHits, ColdQuery
from retriever.answer.cold.kept_answers import NO_MEMBER, Asked
from retriever.answer.exact_search import GivenAnswer, Recalls, TierRecall
from retriever.answer.inquiry import QueryPart
from retriever.answer.online_recall import OnlineRecall, RecallCounts
from schemas.canaries import CANARY_AUTHOR
from schemas.ids import Generation, Offset, PostId
from tests.kit.data.embeddings import GENERATION
from tests.kit.retrievers import PARTITION, QUERY, RetrieverSetup, scored_post
from tests.kit.waiting import until

HALF: Recalls = {"cold": TierRecall(1, 2)}


class ForgetfulColdTier:
    """Its usual searches do not find one post. Its exact ones find all, as those of a reader of their own."""

    def __init__(self, setup: RetrieverSetup) -> None:
        self.setup = setup
        self.forgets = ""
        self.fails = False
        self.exact_searches = 0
        tier = setup.cold.tier
        search = tier.search

        def forgetful(*arguments: Any, **options: Any) -> ColdHits:
            hits = search(*arguments, **options)
            rows = [row for row, post_id in enumerate(hits.post_ids) if post_id != self.forgets]
            return ColdHits(
                [hits.post_ids[row] for row in rows], hits.scores[rows], hits.revisions[rows], hits.position
            )

        self._search = search
        tier.search = forgetful

    def search_batch(self, queries: list[ColdQuery], **_: Any) -> list[ColdHits]:
        self.exact_searches += 1
        if self.fails:
            raise TierUnavailable("the tier is down for this test")
        assert all(query.exact for query in queries)
        return [self._search(query.vector_D, query.k, query.filters) for query in queries]


class Measured:
    def __init__(self, budget: float = 0.5) -> None:
        self.missed: list[float] = []
        self.recall = OnlineRecall(budget, longer=lambda: 0.0)
        self.recall.watch(lambda _, share: self.missed.append(share))
        self.cold: Any = None
        self.setup = RetrieverSetup(recall=self.recall, exact_cold=_Late(lambda: self.cold))
        self.cold = ForgetfulColdTier(self.setup)

    def figures(self) -> Any:
        return self.setup.under_test.figures()[0].recall

    def ask(self, **question: Any) -> list[str]:
        answer = self.setup.ask(vector_D=QUERY, **question)
        assert not answer.partial
        return [str(post_id) for post_id in answer.post_ids]

    def until_measured(self, number: int) -> None:
        until(lambda: self.figures().answers == number, f"{number} answers to be measured")


class _Late:
    """A tier that is made later than its user."""

    def __init__(self, tier: Callable[[], Any]) -> None:
        self._tier = tier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tier(), name)


@pytest.fixture
def measured() -> Iterator[Measured]:
    measured = Measured()
    yield measured
    measured.recall.close()
    measured.setup.close()


def test_what_an_answer_misses_is_counted_by_the_tier_that_holds_it(measured: Measured) -> None:
    setup = measured.setup
    setup.in_cold(*(scored_post(f"cold{number}", 0.5 - number / 100) for number in range(8)))
    setup.in_hot(*(scored_post(f"hot{number}", 0.7 - number / 100) for number in range(2)))
    measured.cold.forgets = "cold0"
    assert "cold0" not in measured.ask(k=5)
    measured.until_measured(1)
    assert measured.figures().by_tier == {"hot": (2, 2), "cold": (2, 3)}
    assert measured.missed == [pytest.approx(0.2)]
    assert measured.figures().seconds > 0


def test_a_whole_answer_that_misses_nothing_has_a_recall_of_one(measured: Measured) -> None:
    measured.setup.in_both(scored_post("a", 0.9), scored_post("b", 0.8))
    measured.ask(k=5)
    measured.until_measured(1)
    assert measured.missed == [0.0]


def test_of_posts_with_the_same_score_either_may_be_the_last(measured: Measured) -> None:
    measured.setup.in_cold(*(scored_post(f"p{number}", 0.5) for number in range(6)))
    measured.cold.forgets = "p0"
    measured.ask(k=5)
    measured.until_measured(1)
    assert measured.missed == [0.0]


@pytest.mark.parametrize(("how", "found"), [("quota", 0), ("best", 1)])
def test_a_low_score_with_one_interest_excuses_no_miss_with_another(measured: Measured, how: str, found: int) -> None:
    """With `quota` the lowest score of an answer may be that of another interest than the post's."""
    measured.setup.in_cold(scored_post("a", 0.5))
    exact = measured.setup.under_test._exact
    assert exact is not None
    exact._combine_by = how  # type: ignore[assignment]
    parts = [QueryPart(vector_D, 0.5, Asked(b"", b""), NO_MEMBER) for vector_D in (QUERY, -QUERY)]
    given = GivenAnswer(parts, NO_FILTERS, 1, [PostId("b")], 0.9)
    assert exact.recalls(given) == {"cold": (found, 1)}


def test_where_the_tier_fails_or_the_answer_is_partial_nothing_is_said(measured: Measured) -> None:
    measured.setup.in_cold(scored_post("a", 0.9))
    measured.cold.fails = True
    measured.ask()
    until(lambda: measured.cold.exact_searches == 1 and measured.recall.wants(), "the tier to have failed")
    measured.cold.fails = False
    measured.setup.hot.tier.begin({PARTITION: Offset(10**9)})
    measured.setup.cold.tier.reached({PARTITION: Offset(0)})
    assert measured.setup.ask(vector_D=QUERY).partial
    assert measured.recall.wants(), "the partial answer was not taken"
    assert (measured.figures().answers, measured.missed) == (0, [])


def test_answers_to_the_monitor_are_not_measured(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[Generation] = []
    monkeypatch.setattr(measured.recall, "offer", lambda generation, *_: offered.append(generation))
    measured.setup.in_cold(scored_post("nearline-canary-0-0", 0.9, author=CANARY_AUTHOR), scored_post("a", 0.8))
    assert measured.ask(only_authors=[CANARY_AUTHOR]) == ["nearline-canary-0-0"]
    assert offered == []
    assert measured.ask(only_authors=["author"]) == ["a"]
    assert offered == [GENERATION]


def test_a_retriever_that_is_closed_measures_nothing_more(measured: Measured) -> None:
    measured.setup.in_cold(scored_post("a", 0.9))
    exact = measured.setup.under_test._exact
    assert exact is not None
    given = GivenAnswer([QueryPart(QUERY, 1.0, Asked(b"", b""), NO_MEMBER)], NO_FILTERS, 5, [], 0.0)
    assert exact.recalls(given) == {"cold": (0, 1)}
    measured.setup.close()
    assert exact.recalls(given) is None
    assert measured.cold.exact_searches == 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_budget_is_kept_whatever_a_measurement_takes() -> None:
    clock, done = Clock(), threading.Semaphore(0)
    recall, counts = OnlineRecall(0.1, clock, longer=lambda: 1.0), RecallCounts()

    def measure() -> Recalls:
        clock.now_s += 2.0
        return HALF

    recall.watch(lambda _, __: done.release())
    recall.offer(GENERATION, counts, measure)
    assert done.acquire(timeout=30)
    until(lambda: recall._job is None, "the measurement to end")
    assert not recall.wants()
    clock.now_s = 2.0 + 17.9
    assert not recall.wants()
    clock.now_s = 2.0 + 18.0
    assert recall.wants(), "two of twenty seconds were spent"
    assert counts.figures() == (1, 2.0, HALF)
    recall.close()


def test_nobody_waits_while_something_is_measured_and_nothing_queues_up() -> None:
    recall, counts, may_end, asked = OnlineRecall(0.5), RecallCounts(), threading.Event(), list[int]()

    def measure() -> Recalls:
        asked.append(1)
        assert may_end.wait(30)
        return HALF

    for _ in range(5):
        recall.offer(Generation("g"), counts, measure)
    until(lambda: asked == [1], "the first one to begin")
    assert not recall.wants()
    may_end.set()
    until(lambda: counts.answers == 1, "the first one to end")
    assert asked == [1], "the others were not taken"
    recall.close()


def test_an_error_ends_no_thread_and_no_budget_takes_nothing() -> None:
    recall, counts = OnlineRecall(0.5, longer=lambda: 0.0), RecallCounts()

    def broken() -> Recalls:
        raise ZeroDivisionError

    recall.offer(GENERATION, counts, broken)
    until(recall.wants, "the broken one to end")
    recall.offer(GENERATION, counts, lambda: HALF)
    until(lambda: counts.answers == 1, "the next one to be measured")
    recall.close()
    assert not OnlineRecall(0.0).wants()
