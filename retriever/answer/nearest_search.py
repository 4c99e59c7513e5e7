"""Finds the posts nearest to the vectors of some questions: a cold answer for each, kept or new, and after that one
search in the hot tier for all of them.

The hot search is as of a moment after the cold answer, so what it holds is newer than that. Its own floor then says
whether the two together are whole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from indexer.errors import IndexerError
from indexer.id_table import IdTable
from indexer.tiers import HotAnswer, HotQuery, Offsets
from retriever.answer.answer_builder import HOT_PROBLEM, NEITHER, Candidates, cold_problem
from retriever.answer.cold.cold_answers import ColdAnswer, ColdAnswerMaker
from retriever.answer.cold.cold_searches import ColdJob, ColdSearch, ColdSearches
from retriever.answer.cold.kept_answers import KeptAnswers
from retriever.answer.hot_batches import HotBatches, PendingHotSearch
from retriever.answer.hot_state import HotState
from retriever.answer.inquiry import Inquiry, Query
from retriever.answer.merge import NO_COLD_COLUMNS, ColdColumns, Merged, merge, without_hot
from retriever.answer.wholeness import covers, reasons
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Code, Reason
from schemas.embeddings import Vector

COLD_MARGIN: Final = 96
"""How many hits the cold tier is asked for beyond k. Those that have changed since are hidden by the hot tier."""
HOT_MARGIN: Final = 32
"""Beyond k. A cold tier that has read a little further than the hot feed takes the place of some hits."""
MAX_LIMIT: Final = 4096

_TOO_MANY_CHANGED: Final = Reason(
    Code.COLD_BEHIND, "so many posts have changed lately that the cold tier may have better ones than it was asked for"
)


@dataclass(slots=True, eq=False)
class _Search:
    """What is known so far for one question."""

    inquiry: Inquiry
    query: Query
    vector_D: Vector
    cold_limit: int
    hot_limit: int
    wants_cold: bool = True
    """The next round begins with the cold tier."""
    needs_new: bool = False
    """No kept answer will do."""
    cold: ColdAnswer | None = None
    cold_is_new: bool = False
    cold_problem: Reason | None = None
    pending: PendingHotSearch | None = None
    hot: HotAnswer | None = None
    hot_failed: bool = False
    feed_problem: Reason | None = None
    """As of a moment before the hot search."""
    merged: Merged | None = None

    @property
    def columns(self) -> ColdColumns:
        return NO_COLD_COLUMNS if self.cold is None else self.cold.columns


class NearestSearch:
    """Any thread may call `search`."""

    def __init__(
        self,
        cold_searches: ColdSearches,
        hot_batches: HotBatches,
        hot_state: HotState,
        *,
        kept: KeptAnswers,
        maker: ColdAnswerMaker,
        ids: IdTable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cold = cold_searches
        self._hot = hot_batches
        self._kept = kept
        self._maker = maker
        self._ids = ids
        self._hot_state = hot_state
        self._clock = clock

    def search(self, inquiries: Sequence[Inquiry]) -> None:
        """Sets the candidates of questions whose query has a vector. Raises RetrieverUnavailable if neither tier
        answers."""
        unfinished = [search for inquiry in inquiries if (search := _begin(inquiry)) is not None]
        while unfinished:
            self._ask_cold([search for search in unfinished if search.wants_cold])
            self._ask_hot(unfinished)
            # Each is finished as soon as it can be: the numbers of hits keep their ids only for some seconds.
            unfinished = [search for search in unfinished if not self._is_finished(search)]

    def _ask_cold(self, searches: Sequence[_Search]) -> None:
        if not searches:
            return
        floor, hot_is_all = self._hot_state.floor(), self._hot_state.holds_everything()
        jobs = []
        for search in searches:
            search.wants_cold = False
            cold = self._without_asking(search, floor, hot_is_all)
            if cold is None:
                jobs.append((search, self._ask(search)))
            else:
                search.cold, search.cold_is_new = cold, False
        for search, job in jobs:
            self._wait_for_cold(search, job)

    def _without_asking(self, search: _Search, floor: Offsets, hot_is_all: bool) -> ColdAnswer | None:
        if search.needs_new:
            return None
        if hot_is_all:
            return self._maker.nothing
        query = search.query
        return self._kept.find(query.asked, query.version, search.cold_limit, floor)

    def _ask(self, search: _Search) -> ColdJob:
        query, left_s = search.query, search.inquiry.deadline_s - self._clock()
        what = ColdSearch(query.asked, query.version, search.vector_D, query.filters, search.cold_limit)
        return self._cold.ask(what, left_s)

    def _wait_for_cold(self, search: _Search, job: ColdJob) -> None:
        """Leaves the hot search enough time. If a second question to the cold tier fails, its first answer stays."""
        inquiry = search.inquiry
        try:
            with inquiry.builder.step("cold"):
                until_s = inquiry.deadline_s if search.hot_failed else inquiry.before_hot_s
                search.cold = self._cold.wait(job, until_s)
                search.cold_is_new = True
        except IndexerError as error:
            search.cold_problem = cold_problem(error)

    def _ask_hot(self, searches: Sequence[_Search]) -> None:
        """All at once, so that they are one batch. Does not wait."""
        feed_problem = self._hot_state.feed_problem()
        for search in searches:
            search.feed_problem, search.pending = feed_problem, None
            if not search.hot_failed:
                self._submit(search)

    def _submit(self, search: _Search) -> None:
        query = HotQuery(search.vector_D, search.hot_limit, search.query.filters, search.columns.numbers_C)
        try:
            search.pending = self._hot.submit(query)
        except IndexerError:
            search.hot_failed = True

    def _is_finished(self, search: _Search) -> bool:
        search.hot = self._wait_for_hot(search)
        if self._needs_another_round(search):
            return False
        self._finish(search)
        return True

    def _wait_for_hot(self, search: _Search) -> HotAnswer | None:
        if search.pending is None:
            return None
        try:
            with search.inquiry.builder.step("hot"):
                return search.pending.wait(search.inquiry.deadline_s)
        except IndexerError:
            search.hot_failed = True
            return None

    def _needs_another_round(self, search: _Search) -> bool:
        """Merges, and decides whether a tier has to be asked again. Each cause comes up once at most."""
        if search.hot is None and search.cold is None:
            raise RetrieverUnavailable(NEITHER)
        if self._is_outdated(search):
            # Without the hot tier, or with what it holds now, a kept answer would show posts that are gone.
            search.cold, search.needs_new, search.wants_cold = None, True, True
            return True
        hot = without_hot(search.columns) if search.hot is None else search.hot
        with search.inquiry.builder.step("merge"):
            k = search.inquiry.question.k
            merged = search.merged = merge(hot, search.hot_limit, search.columns, k, self._ids.ids)
        more_cold = merged.cold_may_miss and search.cold_limit < MAX_LIMIT and search.cold_problem is None
        more_hot = merged.hot_may_miss and search.hot_limit < MAX_LIMIT
        if more_cold:
            search.cold_limit, search.wants_cold = MAX_LIMIT, True
        if more_hot:
            search.hot_limit = MAX_LIMIT
        return more_cold or more_hot

    @staticmethod
    def _is_outdated(search: _Search) -> bool:
        """Whether the cold answer was not made for this question, and is no longer exact."""
        if search.cold is None or search.cold_is_new:
            return False
        return search.hot is None or not covers(search.hot.floor, search.cold.position)

    def _finish(self, search: _Search) -> None:
        merged, builder = search.merged, search.inquiry.builder
        assert merged is not None
        for reason in _problems(search, merged):
            builder.missing(reason)
        with builder.step("merge"):
            ids = self._ids.ids(merged.numbers_K)
        revisions = merged.revisions_K.tolist() if "revision" in search.inquiry.question.columns else None
        search.inquiry.candidates = Candidates(ids, merged.scores_K, merged.tiers_K, revisions)


def cold_limit(k: int) -> int:
    """How many hits the cold tier is asked for first."""
    return min(k + COLD_MARGIN, MAX_LIMIT)


def _begin(inquiry: Inquiry) -> _Search | None:
    query, k = inquiry.query, inquiry.question.k
    if query is None or query.vector_D is None:
        return None
    return _Search(inquiry, query, query.vector_D, cold_limit(k), min(k + HOT_MARGIN, MAX_LIMIT))


def _problems(search: _Search, merged: Merged) -> list[Reason]:
    """Why something may be missing in the answer."""
    found = [] if search.cold_problem is None else [search.cold_problem]
    if search.hot is None:
        found.append(HOT_PROBLEM)
    elif search.cold is not None:
        found += reasons(search.hot.floor, search.cold.position, search.feed_problem)
    elif search.feed_problem is not None:
        found.append(search.feed_problem)
    if merged.cold_may_miss or merged.hot_may_miss:
        found.append(_TOO_MANY_CHANGED)
    return found
