"""The exact search over all shards of the embedded engine: how many hits each shard is asked for, and how the answers
are merged.

A search costs 2 µs for each hit that the engine returns. So each shard is first asked for its even share of k and a
little more. A shard that may hold more of the k best is then asked again, for all k. Knows points by number; knows
neither posts nor filters.
"""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import qdrant_edge as engine

from indexer.best import best_k
from indexer.cold.edge.engine_errors import engine_errors
from indexer.cold.edge.point_table import Mask, Numbers
from indexer.tiers import Scores
from schemas.embeddings import Vector

_SLACK: Final = 1.1
_SLACK_HITS: Final = 32
"""A shard is asked for its even share of k times `_SLACK` plus `_SLACK_HITS`. That is seldom too few. The additional
hits also make up for int8 scores, which order close neighbours wrongly: recall was 0.977 without them, 1.000 with
them."""
_IDS_PER_HIT: Final = 6
"""It costs 0.65 µs to tell the engine the number of a point that passes, and 4 µs to ask for one more hit. So telling
the numbers is cheaper if there are fewer of them than this many for each hit that would be asked for otherwise."""


class NumberedHits(NamedTuple):
    """Best first."""

    numbers: Numbers
    scores: Scores


_NO_HITS: Final = NumberedHits(np.empty(0, np.int64), np.empty(0, np.float32))


class ShardHits(NamedTuple):
    """What a shard has returned for one query."""

    hits: NumberedHits
    """Those that pass."""
    lowest_score: float
    """Of all that it has returned."""
    has_more: bool
    """False if it has returned all that it has."""

    def may_hold_above(self, score: float) -> bool:
        """True if the shard may have more hits above this score."""
        return self.has_more and self.lowest_score > score


_NOTHING: Final = ShardHits(_NO_HITS, -math.inf, has_more=False)


class ShardScan:
    """Searches in one shard, among the points that pass. `live` and `passing` are the part of the masks for this shard,
    whose points are numbered from `first_number` on."""

    def __init__(self, shard: Any, first_number: int, live: Mask, passing: Mask, *, exact: bool = False) -> None:
        """`exact`: the full vectors are compared, without a look at int8 scores first."""
        self._shard = shard
        self._first_number = first_number
        self._passing = passing
        self._params = _EXACT if exact else _RESCORED
        self._num_live = int(np.count_nonzero(live))
        self.num_passing = int(np.count_nonzero(passing))

    def ask(self, query: Any, limit: int, min_score: float = -math.inf, *, surely: bool = False) -> ShardHits:
        """The best points that pass and score above `min_score`: at least `limit` points, or all if the shard has
        fewer. Without `surely` some may be missing; `may_hold_above` tells whether that is possible."""
        if not self.num_passing:
            return _NOTHING
        asked, only = self._limit_and_filter(limit, surely)
        request = engine.SearchRequest(
            query=query,
            limit=asked,
            filter=only,
            params=self._params,
            with_payload=False,
            score_threshold=None if min_score == -math.inf else min_score,
        )
        return self._passed(self._shard.search(request), asked)

    def ask_together(self, queries: Sequence[Any], limit: int) -> list[ShardHits]:
        """As `ask` for one query after the other, in less time."""
        if len(queries) == 1 or not self.num_passing:
            return [self.ask(query, limit) for query in queries]
        asked, only = self._limit_and_filter(limit, surely=False)
        requests = [
            engine.QueryRequest(query=query, limit=asked, filter=only, params=self._params, with_payload=False)
            for query in queries
        ]
        answers = self._shard.query_batch(engine.QueryBatchRequest(queries=requests))
        return [self._passed(answer, asked) for answer in answers]

    def _limit_and_filter(self, limit: int, surely: bool) -> tuple[int, Any]:
        """What the engine is asked for, to get `limit` points that pass."""
        if self.num_passing == self._num_live:
            return limit, None
        if self.num_passing**2 < _IDS_PER_HIT * limit * self._num_live:
            return limit, self._passing_ids()
        return self._with_failing(limit, surely), None

    def _with_failing(self, limit: int, surely: bool) -> int:
        """How many hits to ask for to get `limit` that pass: the engine also returns points that do not pass."""
        num_failing = self._num_live - self.num_passing
        if surely:
            return limit + num_failing
        return min(limit + num_failing, _with_slack(limit * self._num_live / self.num_passing))

    def _passing_ids(self) -> Any:
        numbers: list[int] = (np.flatnonzero(self._passing) + self._first_number).tolist()
        return engine.Filter(must=[engine.HasIdCondition(set(numbers))])

    def _passed(self, answer: Sequence[Any], asked: int) -> ShardHits:
        scores = np.fromiter(map(_SCORE, answer), np.float32, len(answer))
        numbers = np.fromiter(map(_NUMBER, answer), np.int64, len(answer))
        lowest_score = float(scores[-1]) if len(answer) else -math.inf
        if self.num_passing < self._num_live:
            passing = self._passing[numbers - self._first_number]
            numbers, scores = numbers[passing], scores[passing]
        return ShardHits(NumberedHits(numbers, scores), lowest_score, has_more=len(answer) == asked)


def search_shards(scans: Sequence[ShardScan], vectors: Sequence[Vector], ks: Sequence[int]) -> list[NumberedHits]:
    """For each query the k best points that pass, of all shards. Exact, except for the quantisation."""
    total = sum(scan.num_passing for scan in scans)
    if not total:
        return [_NO_HITS] * len(vectors)
    queries = [engine.Query.Nearest(vector_D.tolist()) for vector_D in vectors]
    with engine_errors("searched"):
        # Of each shard as many for every query: only such queries are scored together.
        by_shard = [scan.ask_together(queries, _with_slack(max(ks) * scan.num_passing / total)) for scan in scans]
        by_query = zip(*by_shard, strict=True)
        return [_completed(scans, *each) for each in zip(by_query, queries, ks, strict=True)]


def _completed(scans: Sequence[ShardScan], answers: Sequence[ShardHits], query: Any, k: int) -> NumberedHits:
    """Asks those shards again that may hold more of the k best."""
    best = _merge(answers, k)
    kth_score = float(best.scores[-1]) if len(best.scores) == k else -math.inf
    if not any(answer.may_hold_above(kth_score) for answer in answers):
        return best
    whole = [
        scan.ask(query, _with_slack(k), kth_score, surely=True) if answer.may_hold_above(kth_score) else answer
        for scan, answer in zip(scans, answers, strict=True)
    ]
    return _merge(whole, k)


def _merge(answers: Sequence[ShardHits], k: int) -> NumberedHits:
    scores = np.concatenate([answer.hits.scores for answer in answers])
    numbers = np.concatenate([answer.hits.numbers for answer in answers])
    best = best_k(scores, k)
    return NumberedHits(numbers[best], scores[best])


def _with_slack(hits: float) -> int:
    return math.ceil(_SLACK * hits) + _SLACK_HITS


_SCORE: Final = attrgetter("score")
_NUMBER: Final = attrgetter("id")
_EXACT: Final = engine.SearchParams(exact=True, quantization=engine.QuantizationSearchParams(ignore=True))
_RESCORED: Final = engine.SearchParams(quantization=engine.QuantizationSearchParams(rescore=True))
