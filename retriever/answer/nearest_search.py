"""Finds the posts nearest to the vectors of some questions: a cold answer for each vector, kept or new, and after that
one search in the hot tier for all of them. A question has one vector, and those of a member's interests.

The hot search is as of a moment after the cold answer, so what it holds is newer than that. Its own floor then says
whether the two together are whole.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from indexer.errors import IndexerError
from indexer.id_table import IdTable
from indexer.tiers import Filters, HotAnswer, HotQuery, Offsets
from retriever.answer.answer_builder import HOT_PROBLEM, NEITHER, Candidates, cold_problem
from retriever.answer.cold.cold_answers import ColdAnswer, ColdAnswerMaker
from retriever.answer.cold.cold_searches import ColdJob, ColdSearch, ColdSearches
from retriever.answer.cold.kept_answers import KeptAnswers
from retriever.answer.combine import How, PartList, combine, list_length
from retriever.answer.hot_batches import HotBatches, PendingHotSearch
from retriever.answer.hot_state import HotState
from retriever.answer.inquiry import Inquiry, QueryPart
from retriever.answer.merge import NO_COLD_COLUMNS, ColdColumns, IdsOf, Merged, merge, without_hot
from retriever.answer.wholeness import covers, reasons
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Code, Reason

COLD_MARGIN: Final = 96
"""How many hits the cold tier is asked for beyond k. Those that have changed since are hidden by the hot tier."""
HOT_MARGIN: Final = 32
"""Beyond k. A cold tier that has read a little further than the hot feed takes the place of some hits."""
MAX_LIMIT: Final = 4096

_TOO_MANY_CHANGED: Final = Reason(
    Code.COLD_BEHIND, "so many posts have changed lately that the cold tier may have better ones than it was asked for"
)


@dataclass(slots=True, eq=False)
class _Part:
    """What is known so far for one vector of a question."""

    query: QueryPart
    k: int
    """How many candidates of this vector are asked for."""
    wants_cold: bool = True
    """The next round begins with the cold tier."""
    needs_new: bool = False
    """No kept answer will do."""
    cold: ColdAnswer | None = None
    cold_is_new: bool = False
    hot: HotAnswer | None = None
    merged: Merged | None = None
    cold_limit: int = field(init=False)
    hot_limit: int = field(init=False)

    def __post_init__(self) -> None:
        self.ask_for(self.k)

    def ask_for(self, k: int) -> None:
        self.k, self.cold_limit, self.hot_limit = k, cold_limit(k), min(k + HOT_MARGIN, MAX_LIMIT)

    @property
    def columns(self) -> ColdColumns:
        return NO_COLD_COLUMNS if self.cold is None else self.cold.columns

    @property
    def is_kept(self) -> bool:
        """Whether the cold answer was not made for this question."""
        return self.cold is not None and not self.cold_is_new

    def is_outdated(self) -> bool:
        """Whether a kept answer is no longer exact."""
        if self.cold is None or not self.is_kept:
            return False
        return self.hot is None or not covers(self.hot.floor, self.cold.position)

    def merge(self, ids_of: IdsOf) -> Merged:
        hot = without_hot(self.columns) if self.hot is None else self.hot
        self.merged = merge(hot, self.hot_limit, self.columns, self.k, ids_of)
        return self.merged


@dataclass(slots=True, eq=False)
class _Search:
    """What is known so far for one question."""

    inquiry: Inquiry
    filters: Filters
    parts: list[_Part]
    cold_problem: Reason | None = None
    pending: PendingHotSearch | None = None
    hot_until_s: float = 0.0
    """Until then the hot search is waited for."""
    hot_failed: bool = False
    feed_problem: Reason | None = None
    """As of a moment before the hot search."""
    merged: Merged | None = None

    @property
    def has_hot(self) -> bool:
        return self.parts[0].hot is not None


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
        combine_by: How = "quota",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`combine_by`: how the lists of several vectors of a member become one."""
        self._cold = cold_searches
        self._hot = hot_batches
        self._kept = kept
        self._maker = maker
        self._ids = ids
        self._hot_state = hot_state
        self._combine_by = combine_by
        self._clock = clock

    def search(self, inquiries: Sequence[Inquiry]) -> None:
        """Sets the candidates of questions whose query has a vector. Raises RetrieverUnavailable if neither tier
        answers."""
        unfinished = [search for inquiry in inquiries if (search := self._begin(inquiry)) is not None]
        while unfinished:
            self._ask_cold(unfinished)
            self._ask_hot(unfinished)
            # Each is finished as soon as it can be: the numbers of hits keep their ids only for some seconds.
            unfinished = [search for search in unfinished if not self._is_finished(search)]

    def _begin(self, inquiry: Inquiry) -> _Search | None:
        query, k = inquiry.query, inquiry.question.k
        if query is None or not (parts := query.parts):
            return None
        lengths = [k if len(parts) == 1 else list_length(k, part.share, self._combine_by) for part in parts]
        return _Search(inquiry, query.filters, [_Part(*each) for each in zip(parts, lengths, strict=True)])

    def _ask_cold(self, searches: Sequence[_Search]) -> None:
        floor, hot_is_all = self._hot_state.floor(), self._hot_state.holds_everything()
        asked = []
        for search in searches:
            parts = [part for part in search.parts if part.wants_cold and not self._knows(part, floor, hot_is_all)]
            if parts:
                asked.append((search, parts, self._ask(search, parts)))
        for search, parts, jobs in asked:
            for part, job in zip(parts, jobs, strict=True):
                self._wait_for_cold(search, part, job)

    def _knows(self, part: _Part, floor: Offsets, hot_is_all: bool) -> bool:
        """Whether the cold tier need not be asked."""
        part.wants_cold = False
        if part.needs_new:
            return False
        query = part.query
        cold = (
            self._maker.nothing if hot_is_all else self._kept.find(query.asked, query.version, part.cold_limit, floor)
        )
        if cold is not None:
            part.cold, part.cold_is_new = cold, False
        return cold is not None

    def _ask(self, search: _Search, parts: Sequence[_Part]) -> list[ColdJob]:
        """All at once, so that they are one batch."""
        left_s = search.inquiry.deadline_s - self._clock()
        searches = [
            ColdSearch(part.query.asked, part.query.version, part.query.vector_D, search.filters, part.cold_limit)
            for part in parts
        ]
        return self._cold.ask_together(searches, left_s)

    def _wait_for_cold(self, search: _Search, part: _Part, job: ColdJob) -> None:
        """Leaves the hot search enough time. If a second question to the cold tier fails, its first answer stays."""
        inquiry = search.inquiry
        try:
            with inquiry.builder.step("cold"):
                until_s = inquiry.deadline_s if search.hot_failed else inquiry.before_hot_s
                part.cold = self._cold.wait(job, until_s)
                part.cold_is_new = True
        except IndexerError as error:
            search.cold_problem = cold_problem(error)

    def _ask_hot(self, searches: Sequence[_Search]) -> None:
        """All at once, so that they are one batch. Does not wait.

        Without the hot tier a kept answer is of no use, so half of the time is left to ask for a new one. That counts
        for the whole batch: the questions are waited for one after the other."""
        feed_problem, now_s = self._hot_state.feed_problem(), self._clock()
        has_kept = any(part.is_kept for search in searches for part in search.parts)
        for search in searches:
            search.feed_problem, search.pending = feed_problem, None
            deadline_s = search.inquiry.deadline_s
            search.hot_until_s = now_s + (deadline_s - now_s) / 2 if has_kept else deadline_s
            if not search.hot_failed:
                self._submit(search)

    def _submit(self, search: _Search) -> None:
        queries = [
            HotQuery(part.query.vector_D, part.hot_limit, search.filters, part.columns.numbers_C)
            for part in search.parts
        ]
        try:
            search.pending = self._hot.submit(*queries)
        except IndexerError:
            search.hot_failed = True

    def _is_finished(self, search: _Search) -> bool:
        for part, hot in zip(search.parts, self._wait_for_hot(search), strict=True):
            part.hot = hot
        if self._needs_another_round(search):
            return False
        self._finish(search)
        return True

    def _wait_for_hot(self, search: _Search) -> Sequence[HotAnswer | None]:
        nothing = [None] * len(search.parts)
        if search.pending is None:
            return nothing
        try:
            with search.inquiry.builder.step("hot"):
                return search.pending.wait(search.hot_until_s)
        except IndexerError:
            search.hot_failed = True
            return nothing

    def _needs_another_round(self, search: _Search) -> bool:
        """Merges, and decides whether a tier has to be asked again. Each cause comes up once at most."""
        if not search.has_hot and all(part.cold is None for part in search.parts):
            raise RetrieverUnavailable(NEITHER)
        if outdated := [part for part in search.parts if part.is_outdated()]:
            # Without the hot tier, or with what it holds now, a kept answer would show posts that are gone.
            for part in outdated:
                part.cold, part.needs_new, part.wants_cold = None, True, True
            return True
        with search.inquiry.builder.step("merge"):
            k = search.inquiry.question.k
            lists = [PartList(part.merge(self._ids.ids), part.query.share, part.k) for part in search.parts]
            search.merged, too_short = combine(lists, self._combine_by, k, self._ids.ids)
        again = [
            self._asks_for_more(search, part, k, is_short)
            for part, is_short in zip(search.parts, too_short, strict=True)
        ]
        return any(again)

    @staticmethod
    def _asks_for_more(search: _Search, part: _Part, k: int, is_short: bool) -> bool:
        merged = part.merged
        assert merged is not None
        if is_short:
            part.ask_for(k)
            part.wants_cold = search.cold_problem is None
            return True
        more_cold = merged.cold_may_miss and part.cold_limit < MAX_LIMIT and search.cold_problem is None
        more_hot = merged.hot_may_miss and part.hot_limit < MAX_LIMIT
        if more_cold:
            part.cold_limit, part.wants_cold = MAX_LIMIT, True
        if more_hot:
            part.hot_limit = MAX_LIMIT
        return more_cold or more_hot

    def _finish(self, search: _Search) -> None:
        merged, builder = search.merged, search.inquiry.builder
        assert merged is not None
        for part in search.parts:
            for reason in _problems(search, part):
                builder.missing(reason)
        with builder.step("merge"):
            ids = self._ids.ids(merged.numbers_K)
        revisions = merged.revisions_K.tolist() if "revision" in search.inquiry.question.columns else None
        search.inquiry.candidates = Candidates(ids, merged.scores_K, merged.tiers_K, revisions)


def cold_limit(k: int) -> int:
    """How many hits the cold tier is asked for first."""
    return min(k + COLD_MARGIN, MAX_LIMIT)


def _problems(search: _Search, part: _Part) -> list[Reason]:
    """Why something of this vector's list may be missing in the answer."""
    found = [] if search.cold_problem is None else [search.cold_problem]
    if part.hot is None:
        found.append(HOT_PROBLEM)
    elif part.cold is not None:
        found += reasons(part.hot.floor, part.cold.position, search.feed_problem)
    elif search.feed_problem is not None:
        found.append(search.feed_problem)
    if part.merged is not None and (part.merged.cold_may_miss or part.merged.hot_may_miss):
        found.append(_TOO_MANY_CHANGED)
    return found
