"""The points of one kind in the embedded engine: shards of a fixed size that fill one after another.

Owns the engine's handles, its settings and the exact merge of the shards' answers. Knows points by number (number //
size is the shard) and their head as text; knows neither posts nor filters. Its owner calls it from one thread at a
time: the engine holds Python's lock in every call anyway.

Why shards of this size (1M points of 128 numbers, two cores): building a segment costs 10 µs a point and stops every
search of the process, so a shard and its segments stay small (0.6 s at the worst); a small segment scans as fast per
point as a large one, 27 ns, and what does cost, 2 µs a hit, is kept down by asking each shard for its share of k first.
"""

import math
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import qdrant_edge as engine

from indexer.best import best_k
from indexer.cold import shard_folders
from indexer.cold.engine_errors import engine_errors
from indexer.cold.point_table import Numbers, Passing
from indexer.cold.shard_folders import PendingErasures
from indexer.tiers import Clock, Scores
from schemas.embeddings import Vector
from schemas.ids import Micros
from schemas.times import now_us

SHARD_POINTS: Final = 65_536
_SEGMENT_POINTS: Final = 32_768
"""So many new points wait unquantised before a segment is built of them: 0.3 s of CPU. A scan of unquantised points
costs four times as much: a full shard, which only changes, waits for fewer."""
_CHANGED_POINTS: Final = 8_192
_SEGMENT_LIMIT: Final = 40_000
"""Segments are merged up to this size."""
_MIN_INDEXED_POINTS: Final = 2_000
_COPIED_POINTS: Final = 200
"""At once, before searches may go on."""
_SEARCH_THREADS: Final = 2
"""Of the engine, for the segments of one shard. A full one has two: two threads searched a million points in 29 ms, one
in 43."""
_SLACK: Final = 1.1
_SLACK_HITS: Final = 32
"""A shard is asked for so much more than its even share of k. It is seldom too little, then the shard is asked again;
and int8 orders neighbours wrongly at the edge of what is asked: without slack recall is 0.977, with it 1.000."""
_NARROW: Final = 6
"""To tell the engine a point that passes costs 0.65 µs, to ask it for a hit more 4 µs."""
_HEAD: Final = "head"
_BODY: Final = "body"


class Point(NamedTuple):
    """No vector: searches do not see it."""

    number: int
    vector: Vector | None
    head: str
    body: str | None = None


class Stored(NamedTuple):
    number: int
    head: str
    body: str | None
    vector: Vector | None


class Found(NamedTuple):
    """Best first."""

    numbers: Numbers
    scores: Scores


class Shards:
    def __init__(self, folder: Path, dimension: int, *, quantize: bool, clock: Clock = now_us) -> None:
        """Opens what is there, or starts empty. Raises TierUnavailable."""
        self._folder = folder
        self._dimension = dimension
        self._quantize = quantize
        self._shards: list[Any] = []
        """None for one that a failed rewrite has closed: the next call opens it again."""
        self._written: list[int] = []
        """By shard: points written since its segments were built."""
        self._dirty: set[int] = set()
        self._erased = PendingErasures(folder, clock)
        with engine_errors("opened"):
            shard_folders.recover(folder)
            while (folder / str(len(self._shards))).exists():
                self._open(len(self._shards))

    def close(self) -> None:
        with engine_errors("closed"):
            for shard in self._shards:
                if shard is not None:
                    shard.close()
        self._shards = []

    def upsert(self, points: Sequence[Point]) -> None:
        for place, mine in _by_shard(points, lambda point: point.number):
            with engine_errors("written"):
                while place >= len(self._shards):
                    self._open(len(self._shards))
                if any(point.vector is None for point in mine):
                    self._erased.note(place)
                self._shard(place).update(engine.UpdateOperation.upsert_points([_to_engine(one) for one in mine]))
            self._touched(place, len(mine))

    def remove(self, numbers: Sequence[int], *, with_vectors: bool = False) -> None:
        """Points without a vector, unless told that they may have one."""
        for place, mine in _by_shard(numbers, int):
            with engine_errors("written"):
                if with_vectors:
                    self._erased.note(place)
                self._shard(place).update(engine.UpdateOperation.delete_points(list(mine)))
            self._touched(place, len(mine))

    def erased_since(self) -> dict[int, Micros]:
        """When the first vector was deleted that a shard's files still have, by shard. Any thread."""
        return self._erased.since()

    def rewrite(self, place: int) -> Generator[None, None, None]:
        """Puts a copy of the shard, without what was deleted, in its place. Searches may go on between two steps,
        writes may not. What ends in between has changed nothing. Raises TierUnavailable."""
        shard = self._shard(place)
        with shard_folders.new_folder(self._folder, place) as new:
            with engine_errors("rewritten"):
                copy = engine.EdgeShard.create(str(new), self._config())
            try:
                yield from self._copy(shard, copy)
                with engine_errors("flushed"):
                    copy.flush()
            finally:
                with engine_errors("closed"):
                    copy.close()
            with engine_errors("rewritten"):
                self._replace(place, new)
                self._erased.forget(place)

    def _replace(self, place: int, new: Path) -> None:
        """Wherever this fails, the next call opens the shard that is in its place then."""
        replaced, self._shards[place] = self._shards[place], None
        replaced.close()
        shard_folders.swap(new, self._folder / str(place))
        self._dirty.discard(place)
        self._shard(place)

    def _shard(self, place: int) -> Any:
        if self._shards[place] is None:
            with engine_errors("opened"):
                shard_folders.recover_shard(self._folder, place)
                self._shards[place], self._written[place] = self._load(place)
        return self._shards[place]

    def _copy(self, shard: Any, copy: Any) -> Iterator[None]:
        offset, unbuilt = None, 0
        while True:
            request = engine.ScrollRequest(offset=offset, limit=_COPIED_POINTS, with_payload=True, with_vector=True)
            with engine_errors("rewritten"):
                records, offset = shard.scroll(request)
                found = map(_from_engine, records)
                points = [_to_engine(Point(one.number, one.vector, one.head, one.body)) for one in found]
                if points:
                    copy.update(engine.UpdateOperation.upsert_points(points))
                unbuilt += len(points)
                if unbuilt >= _SEGMENT_POINTS or offset is None:
                    copy.optimize()
                    unbuilt = 0
            yield
            if offset is None:
                return

    def flush(self) -> None:
        with engine_errors("flushed"):
            while self._dirty:
                place = next(iter(self._dirty))
                self._shard(place).flush()
                self._dirty.discard(place)

    def tidy(self) -> bool:
        """Builds segments in one shard that needs it, if any does: at most about half a second of CPU."""
        last = len(self._shards) - 1
        for place, written in enumerate(self._written):
            if written >= (_SEGMENT_POINTS if place == last else _CHANGED_POINTS):
                with engine_errors("optimised"):
                    self._shard(place).optimize()
                self._written[place] = 0
                self._dirty.add(place)
                return True
        return False

    def search(self, query_D: Vector, k: int, live: Passing, passing: Passing) -> Found:
        """The k best of the points that pass, by number; `live` are those with a vector. Exact but for the
        quantisation: a shard that may hold more of the best than it was asked for is asked again for all k."""
        scans = [_Scan(self._shard(place), place, live, passing) for place in range(len(self._shards))]
        scans = [scan for scan in scans if scan.passing]
        if not scans:
            return _NOTHING
        total = sum(scan.passing for scan in scans)
        query = engine.Query.Nearest(query_D.tolist())
        with engine_errors("searched"):
            for scan in scans:
                scan.ask(query, _with_slack(k * scan.passing / total))
            best = _merge(scans, k)
            bound = float(best.scores[-1]) if len(best.scores) == k else -math.inf
            again = [scan for scan in scans if scan.may_hold_above(bound)]
            for scan in again:
                scan.ask(query, _with_slack(k), bound, surely=True)
        return _merge(scans, k) if again else best

    def get(self, numbers: Sequence[int], *, vectors: bool) -> dict[int, Stored]:
        """Those that are stored."""
        found: dict[int, Stored] = {}
        for place, mine in _by_shard(numbers, int):
            with engine_errors("read"):
                records = self._shard(place).retrieve(list(mine), True, vectors)
            found |= {record.id: _from_engine(record) for record in records}
        return found

    def heads(self, page: int) -> Iterator[list[tuple[int, str]]]:
        """Number and head of every point, in pages. At the start, when every shard is open."""
        for shard in self._shards:
            offset = None
            while True:
                request = engine.ScrollRequest(offset=offset, limit=page, with_payload=[_HEAD], with_vector=False)
                with engine_errors("read"):
                    records, offset = shard.scroll(request)
                yield [(record.id, record.payload[_HEAD]) for record in records]
                if offset is None:
                    break

    def _open(self, place: int) -> None:
        """A shard is made beside its place and moved there, so that a kill leaves a whole one or none."""
        folder = self._folder / str(place)
        if not folder.exists():
            new = self._folder / "new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            engine.EdgeShard.create(str(new), self._config()).close()
            new.rename(folder)
        shard, written = self._load(place)
        self._shards.append(shard)
        self._written.append(written)

    def _load(self, place: int) -> tuple[Any, int]:
        """And how many points were written since its segments were built."""
        shard = engine.EdgeShard.load(str(self._folder / str(place)), self._config())
        state = shard.info()
        return shard, max(0, state.points_count - state.indexed_vectors_count)

    def _config(self) -> Any:
        quantization = engine.ScalarQuantizationConfig(type=engine.ScalarType.Int8, memory=engine.Memory.Pinned)
        point_kb = self._dimension * 4 / 1024
        return engine.EdgeConfig(
            vectors=engine.EdgeVectorParams(
                size=self._dimension, distance=engine.Distance.Dot, memory=engine.Memory.Cached
            ),
            # No graph: the scan is exact and building a segment costs a seventh.
            hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            quantization_config=quantization if self._quantize else None,
            optimizers=engine.EdgeOptimizersConfig(
                default_segment_number=2,
                max_segment_size=math.ceil(_SEGMENT_LIMIT * point_kb),
                indexing_threshold=math.ceil(_MIN_INDEXED_POINTS * point_kb),
            ),
            max_search_threads=_SEARCH_THREADS,
            # Without its log the engine forgot points of earlier flushes in 4 of 100 kills within a flush.
            wal_enabled=True,
        )

    def _touched(self, place: int, points: int) -> None:
        self._written[place] += points
        self._dirty.add(place)


class _Scan:
    """One search in one shard, asked once or twice."""

    def __init__(self, shard: Any, place: int, live: Passing, passing: Passing) -> None:
        self._shard = shard
        self._first = place * SHARD_POINTS
        self._mine = passing[self._first : self._first + SHARD_POINTS]
        self.passing = int(np.count_nonzero(self._mine))
        self._live = int(np.count_nonzero(live[self._first : self._first + SHARD_POINTS]))
        self._more = False
        self._worst = math.inf
        self.found = _NOTHING

    def ask(self, query: Any, limit: int, bound: float = -math.inf, *, surely: bool = False) -> None:
        """At least `limit` hits that pass, where so many are above the bound; only probably so if not `surely`."""
        narrow = self.passing**2 < _NARROW * limit * self._live and self.passing < self._live
        asked = limit if narrow else self._widened(limit, surely)
        request = engine.SearchRequest(
            query=query,
            limit=asked,
            filter=self._chosen() if narrow else None,
            params=_PARAMS,
            with_payload=False,
            score_threshold=None if bound == -math.inf else bound,
        )
        hits = self._shard.search(request)
        scores = np.fromiter((hit.score for hit in hits), np.float32, len(hits))
        numbers = np.fromiter((hit.id for hit in hits), np.int64, len(hits))
        self._more = len(hits) == asked
        self._worst = float(scores[-1]) if len(hits) else -math.inf
        kept = self._mine[numbers - self._first]
        self.found = Found(numbers[kept], scores[kept])

    def may_hold_above(self, bound: float) -> bool:
        """The shard gave all that it was asked for, and its worst would still be among the best."""
        return self._more and self._worst > bound

    def _widened(self, limit: int, surely: bool) -> int:
        """What does not pass may be among the best."""
        failing = self._live - self.passing
        if surely or failing == 0:
            return limit + failing
        return min(limit + failing, _with_slack(limit * self._live / self.passing))

    def _chosen(self) -> Any:
        numbers: list[int] = (np.flatnonzero(self._mine) + self._first).tolist()
        return engine.Filter(must=[engine.HasIdCondition(set(numbers))])


def _merge(scans: Sequence[_Scan], k: int) -> Found:
    scores = np.concatenate([scan.found.scores for scan in scans])
    numbers = np.concatenate([scan.found.numbers for scan in scans])
    best = best_k(scores, k)
    return Found(numbers[best], scores[best])


def _with_slack(share: float) -> int:
    return math.ceil(_SLACK * share) + _SLACK_HITS


def _by_shard(things: Sequence[Any], number: Callable[[Any], int]) -> Iterator[tuple[int, list[Any]]]:
    groups: dict[int, list[Any]] = {}
    for thing in things:
        groups.setdefault(number(thing) // SHARD_POINTS, []).append(thing)
    yield from sorted(groups.items())


def _to_engine(point: Point) -> Any:
    payload = {_HEAD: point.head} if point.body is None else {_HEAD: point.head, _BODY: point.body}
    return engine.Point(id=point.number, vector={} if point.vector is None else point.vector.tolist(), payload=payload)


def _from_engine(record: Any) -> Stored:
    vector = np.array(record.vector, np.float32) if isinstance(record.vector, list) else None
    return Stored(record.id, record.payload[_HEAD], record.payload.get(_BODY), vector)


_PARAMS: Final = engine.SearchParams(quantization=engine.QuantizationSearchParams(rescore=True))
_NOTHING: Final = Found(np.empty(0, np.int64), np.empty(0, np.float32))
