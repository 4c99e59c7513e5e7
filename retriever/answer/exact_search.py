"""Answers a query once more, by the full vectors of all posts, and says how much of that was in the answer that was
given: the recall of live answers.

Neither kept cold answers nor graphs, int8 or fp16 decide here what is looked at: the cold tier is asked for an exact
search, and the hot one for so many posts that rounding leaves none of the best out. What changes between the two
answers counts as missed, so call it soon after the first one.
"""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple

from indexer.errors import TierUnavailable
from indexer.id_table import IdTable
from indexer.tiers import ColdHits, ColdQuery, ColdReader, Filters, HotQuery, HotTier
from retriever.answer.cold.cold_answers import ColdAnswerMaker
from retriever.answer.combine import How, PartList, combine
from retriever.answer.hot_state import HotState
from retriever.answer.inquiry import QueryPart
from retriever.answer.merge import NO_COLD_COLUMNS, merge
from retriever.answer.nearest_search import MAX_LIMIT, cold_limit
from retriever.answer.question import TIERS, Tier
from retriever.answer.wholeness import reasons
from schemas.ids import PostId

_TIMEOUT_S: Final = 5.0
_SAME_SCORE: Final = 1e-5
"""Scores that differ by rounding alone: either of two such posts may be the last one of an answer."""


class GivenAnswer(NamedTuple):
    """A whole answer, and what it was asked for."""

    parts: Sequence[QueryPart]
    """The vectors."""
    filters: Filters
    k: int
    post_ids: Sequence[PostId]
    lowest_score: float
    """Of its last post."""


class TierRecall(NamedTuple):
    found: int
    expected: int


class _Exact(NamedTuple):
    """As columns, best first."""

    post_ids: Sequence[PostId]
    scores: Sequence[float]
    tiers: Sequence[Tier]
    cold_may_miss: bool


Recalls = Mapping[Tier, TierRecall]
"""By the tier from which the exact answer has its posts. Whichever tier gave them counts as having found them."""


class ExactSearch:
    """Of one generation. Any thread may call the methods."""

    def __init__(
        self,
        cold: ColdReader,
        hot: HotTier,
        hot_state: HotState,
        maker: ColdAnswerMaker,
        ids: IdTable,
        *,
        combine_by: How = "quota",
    ) -> None:
        """`cold` is a reader of its own: a slow search here must not count as a sign that the tier fails."""
        self._combine_by = combine_by
        self._cold, self._hot, self._hot_state = cold, hot, hot_state
        self._maker, self._ids = maker, ids
        self._lock = Lock()
        self._closed = False

    def recalls(self, given: GivenAnswer) -> Recalls | None:
        """None if the exact answer would not be whole. Raises IndexerError."""
        exact = self._answer(given, cold_limit(given.k))
        if exact is not None and exact.cold_may_miss:
            exact = self._answer(given, MAX_LIMIT)
        if exact is None or exact.cold_may_miss:
            return None
        shown = set(given.post_ids)
        # Of several vectors with `quota`, the lowest score is that of one of them, and says nothing of another's posts.
        one_order = len(given.parts) == 1 or self._combine_by == "best"
        may_tie = one_order and len(given.post_ids) >= given.k
        found, expected = dict.fromkeys(TIERS, 0), dict.fromkeys(TIERS, 0)
        for post_id, score, tier in zip(exact.post_ids, exact.scores, exact.tiers, strict=True):
            expected[tier] += 1
            found[tier] += post_id in shown or (may_tie and score <= given.lowest_score + _SAME_SCORE)
        return {tier: TierRecall(found[tier], expected[tier]) for tier in TIERS if expected[tier]}

    def close(self) -> None:
        """Waits for a search in the hot tier that runs. After it the ids of this generation are not touched any
        more."""
        with self._lock:
            self._closed = True

    def _answer(self, given: GivenAnswer, limit: int) -> _Exact | None:
        """None if it is not whole."""
        if self._closed or self._hot_state.feed_problem() is not None:
            return None
        hits = [] if self._hot_state.holds_everything() else self._ask_cold(given, limit)
        # Not held while the cold tier is asked, so that a close need not wait for that.
        with self._lock:
            if self._closed:
                return None
            # The answers live until the ids have been read: then their numbers are given back.
            answers = [self._maker.make(each, limit) for each in hits]
            columns = [answer.columns for answer in answers] or [NO_COLD_COLUMNS] * len(given.parts)
            queries = [
                HotQuery(part.vector_D, MAX_LIMIT, given.filters, each.numbers_C)
                for part, each in zip(given.parts, columns, strict=True)
            ]
            hot_answers = self._hot.search(queries)
            floor = hot_answers[0].floor
            if any(reasons(floor, position, None) for position in [each.position for each in hits] or [{}]):
                return None
            lists = [
                merge(hot, MAX_LIMIT, each, given.k, self._ids.ids)
                for hot, each in zip(hot_answers, columns, strict=True)
            ]
            parts = [PartList(merged, part.share, given.k) for merged, part in zip(lists, given.parts, strict=True)]
            best = combine(parts, self._combine_by, given.k, self._ids.ids).merged
            ids = self._ids.ids(best.numbers_K)
        if any(merged.hot_may_miss for merged in lists):
            return None
        tiers = [TIERS[tier] for tier in best.tiers_K.tolist()]
        return _Exact(ids, best.scores_K.tolist(), tiers, any(merged.cold_may_miss for merged in lists))

    def _ask_cold(self, given: GivenAnswer, limit: int) -> list[ColdHits]:
        queries = [ColdQuery(part.vector_D, limit, given.filters, exact=True) for part in given.parts]
        answers = self._cold.search_batch(queries, timeout_s=_TIMEOUT_S)
        if len(answers) != len(queries):
            raise TierUnavailable("the cold tier gave another number of answers than it was asked for")
        return answers
