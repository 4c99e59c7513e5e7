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


class ShardScan:
    """One search in one shard, which may be asked twice. `live` and `passing` are the part of the masks for this shard,
    whose points are numbered from `first_number` on."""

    def __init__(self, shard: Any, first_number: int, live: Mask, passing: Mask, *, exact: bool = False) -> None:
        """`exact`: the full vectors are compared, without a look at int8 scores first."""
        self._shard = shard
        self._first_number = first_number
        self._passing = passing
        self._params = _EXACT if exact else _RESCORED
        self._num_live = int(np.count_nonzero(live))
        self.num_passing = int(np.count_nonzero(passing))
        self._may_have_more = False
        self._lowest_score = math.inf
        self.hits = _NO_HITS

    def ask(self, query: Any, limit: int, min_score: float = -math.inf, *, surely: bool = False) -> None:
        """Sets `hits` to the best points that pass and score above `min_score`: to at least `limit` points, or to all
        if the shard has fewer. Without `surely` some may be missing; `may_hold_above` tells whether that is
        possible."""
        few_pass = self._few_pass(limit)
        asked = limit if few_pass else self._with_failing(limit, surely)
        request = engine.SearchRequest(
            query=query,
            limit=asked,
            filter=self._passing_ids() if few_pass else None,
            params=self._params,
            with_payload=False,
            score_threshold=None if min_score == -math.inf else min_score,
        )
        self._take(self._shard.search(request), asked)

    @staticmethod
    def ask_together(scans: "Sequence[ShardScan]", queries: Sequence[Any], limit: int) -> None:
        """As `ask` for one query after the other, in less time. The scans are of one shard, and the same points pass.
        Each query has one."""
        first = scans[0]
        few_pass = first._few_pass(limit)
        asked = limit if few_pass else first._with_failing(limit, surely=False)
        passing_ids = first._passing_ids() if few_pass else None
        requests = [
            engine.QueryRequest(query=query, limit=asked, filter=passing_ids, params=first._params, with_payload=False)
            for query in queries
        ]
        answers = first._shard.query_batch(engine.QueryBatchRequest(queries=requests))
        for scan, hits in zip(scans, answers, strict=True):
            scan._take(hits, asked)

    def _few_pass(self, limit: int) -> bool:
        """Whether it is cheaper to tell the engine which points pass."""
        return self.num_passing**2 < _IDS_PER_HIT * limit * self._num_live and self.num_passing < self._num_live

    def _take(self, hits: Sequence[Any], asked: int) -> None:
        scores = np.fromiter(map(_SCORE, hits), np.float32, len(hits))
        numbers = np.fromiter(map(_NUMBER, hits), np.int64, len(hits))
        self._may_have_more = len(hits) == asked
        self._lowest_score = float(scores[-1]) if len(hits) else -math.inf
        if self.num_passing < self._num_live:
            passing = self._passing[numbers - self._first_number]
            numbers, scores = numbers[passing], scores[passing]
        self.hits = NumberedHits(numbers, scores)

    def may_hold_above(self, score: float) -> bool:
        """True if the shard may have more hits above this score: it returned as many as it was asked for, and even the
        lowest of them is above the score."""
        return self._may_have_more and self._lowest_score > score

    def _with_failing(self, limit: int, surely: bool) -> int:
        """How many hits to ask for to get `limit` that pass: the engine also returns points that do not pass."""
        num_failing = self._num_live - self.num_passing
        if surely or num_failing == 0:
            return limit + num_failing
        return min(limit + num_failing, _with_slack(limit * self._num_live / self.num_passing))

    def _passing_ids(self) -> Any:
        numbers: list[int] = (np.flatnonzero(self._passing) + self._first_number).tolist()
        return engine.Filter(must=[engine.HasIdCondition(set(numbers))])


def search_shards(
    shards: Sequence[Sequence[ShardScan]], vectors: Sequence[Vector], ks: Sequence[int]
) -> list[NumberedHits]:
    """For each query the k best points that pass, of all shards. Exact, except for the quantisation. `shards`: of each
    shard a scan for each query. The same points pass for all queries."""
    passed = [scans for scans in shards if scans[0].num_passing]
    if not passed:
        return [_NO_HITS] * len(vectors)
    total = sum(scans[0].num_passing for scans in passed)
    queries = [engine.Query.Nearest(vector_D.tolist()) for vector_D in vectors]
    with engine_errors("searched"):
        for scans in passed:
            # The same for all of them: only such queries are scored together.
            limit = _with_slack(max(ks) * scans[0].num_passing / total)
            if len(queries) == 1:
                scans[0].ask(queries[0], limit)
            else:
                ShardScan.ask_together(scans, queries, limit)
        return [
            _completed([scans[number] for scans in passed], query, k)
            for number, (query, k) in enumerate(zip(queries, ks, strict=True))
        ]


def _completed(scans: Sequence[ShardScan], query: Any, k: int) -> NumberedHits:
    """Asks those shards again that may hold more of the k best."""
    best = _merge(scans, k)
    kth_score = float(best.scores[-1]) if len(best.scores) == k else -math.inf
    incomplete = [scan for scan in scans if scan.may_hold_above(kth_score)]
    for scan in incomplete:
        scan.ask(query, _with_slack(k), kth_score, surely=True)
    return _merge(scans, k) if incomplete else best


def _merge(scans: Sequence[ShardScan], k: int) -> NumberedHits:
    scores = np.concatenate([scan.hits.scores for scan in scans])
    numbers = np.concatenate([scan.hits.numbers for scan in scans])
    best = best_k(scores, k)
    return NumberedHits(numbers[best], scores[best])


def _with_slack(hits: float) -> int:
    return math.ceil(_SLACK * hits) + _SLACK_HITS


_SCORE: Final = attrgetter("score")
_NUMBER: Final = attrgetter("id")
_EXACT: Final = engine.SearchParams(exact=True, quantization=engine.QuantizationSearchParams(ignore=True))
_RESCORED: Final = engine.SearchParams(quantization=engine.QuantizationSearchParams(rescore=True))
