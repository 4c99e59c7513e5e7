"""The points of one kind in the embedded engine: shards of a fixed size that fill one after another.

A point has a number, a vector and two texts: `head` (small, read at the start) and `body`. Its shard is the number
divided by the size of a shard. Points that were written lately wait, unquantised, until the engine builds a segment of
them, in which they are quantised.

Owns the engine's handles and settings, and the rewriting of a shard. Knows neither posts nor filters. Its owner calls
it from one thread at a time: the engine holds the GIL during every call, so more threads would not help.

Why a shard has only `SHARD_POINTS` points (measured on two cores, with 1M points in all, of 128 numbers): building a
segment costs 10 µs a point and stops every search of the process, so a shard and its segments stay small (0.6 s at the
worst). A small segment scans as fast per point as a large one, 27 ns.
"""

import math
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import qdrant_edge as engine

from indexer.cold.edge import shard_folders
from indexer.cold.edge.engine_errors import engine_errors
from indexer.cold.edge.point_table import Mask
from indexer.cold.edge.shard_folders import PendingErasures
from indexer.cold.edge.shard_search import NumberedHits, ShardScan, search_shards
from indexer.tiers import Clock
from schemas.embeddings import Vector
from schemas.ids import Micros
from schemas.times import now_us

SHARD_POINTS: Final = 65_536
_BUILD_AFTER_POINTS: Final = 32_768
"""In the last shard a segment is built as soon as this many points wait. Building it takes 0.3 s of CPU."""
_BUILD_AFTER_CHANGES: Final = 8_192
"""A full shard gets no new points. There a segment is built after fewer changes, because scanning a waiting point costs
four times as much as scanning a quantised one."""
_MAX_SEGMENT_POINTS: Final = 40_000
"""The engine merges segments up to this size."""
_MIN_BUILT_POINTS: Final = 2_000
"""The engine builds no segment of fewer points."""
_COPY_POINTS: Final = 200
"""A rewrite copies this many points at once, before searches may go on."""
_SEARCH_THREADS: Final = 2
"""Threads of the engine for each search of one shard. A full shard has two segments: two threads searched a million
points in 29 ms, one thread in 43."""
_HEAD: Final = "head"
_BODY: Final = "body"


class Point(NamedTuple):
    number: int
    vector: Vector | None
    """None in a point to be written: searches skip it. None in a point that was read: it has no vector, or none was
    asked for."""
    head: str
    body: str | None = None


class Shards:
    def __init__(self, folder: Path, dimension: int, *, quantize: bool, clock: Clock = now_us) -> None:
        """Opens the shards in the folder, or starts empty. Raises TierUnavailable."""
        self._folder = folder
        self._dimension = dimension
        self._quantize = quantize
        self._shards: list[Any] = []
        """By shard id. None: a rewrite has failed after it had closed the shard; `_shard` opens it again."""
        self._num_changes: list[int] = []
        """By shard id: how many points were written or removed since its last segment was built; after a start, how
        many are in no built segment."""
        self._unflushed: set[int] = set()
        """The ids of the shards that were written since their last flush."""
        self._erasures = PendingErasures(folder, clock)
        with engine_errors("opened"):
            shard_folders.recover(folder)
            while (folder / str(len(self._shards))).exists():
                self._open_or_create(len(self._shards))

    def close(self) -> None:
        with engine_errors("closed"):
            for shard in self._shards:
                if shard is not None:
                    shard.close()
        self._shards = []

    def upsert(self, points: Sequence[Point]) -> None:
        for shard_id, shard_points in _by_shard(points, lambda point: point.number):
            with engine_errors("written"):
                while shard_id >= len(self._shards):
                    self._open_or_create(len(self._shards))
                if any(point.vector is None for point in shard_points):
                    # Such a point may replace one that had a vector, which is still in the files.
                    self._erasures.add(shard_id)
                rows = [_to_engine(point) for point in shard_points]
                self._shard(shard_id).update(engine.UpdateOperation.upsert_points(rows))
            self._note_written(shard_id, len(shard_points))

    def remove(self, numbers: Sequence[int], *, may_have_vectors: bool = False) -> None:
        """`may_have_vectors`: whether any of the points may have a vector. If so, it is noted that the shard must be
        rewritten, because a removed vector stays in the files until then."""
        for shard_id, shard_numbers in _by_shard(numbers, int):
            with engine_errors("written"):
                if may_have_vectors:
                    self._erasures.add(shard_id)
                self._shard(shard_id).update(engine.UpdateOperation.delete_points(list(shard_numbers)))
            self._note_written(shard_id, len(shard_numbers))

    def flush(self) -> None:
        with engine_errors("flushed"):
            while self._unflushed:
                shard_id = next(iter(self._unflushed))
                self._shard(shard_id).flush()
                self._unflushed.discard(shard_id)

    def build_segments(self) -> bool:
        """Builds segments in one shard that has changed enough. How long that takes is said at the top of this
        file. False if there is no such shard."""
        last = len(self._shards) - 1
        for shard_id, num_changes in enumerate(self._num_changes):
            if num_changes >= (_BUILD_AFTER_POINTS if shard_id == last else _BUILD_AFTER_CHANGES):
                with engine_errors("optimised"):
                    self._shard(shard_id).optimize()
                self._num_changes[shard_id] = 0
                self._unflushed.add(shard_id)
                return True
        return False

    def search(self, vectors: Sequence[Vector], ks: Sequence[int], live: Mask, passing: Mask) -> list[NumberedHits]:
        """For each vector the k points with the highest scores among those in `passing`. Both masks are by point
        number: `live` marks all points that have a vector, `passing` those of them that the search may return."""
        scans = [self._scan(shard_id, live, passing) for shard_id in range(len(self._shards))]
        return search_shards(scans, vectors, ks)

    @property
    def num_shards(self) -> int:
        return len(self._shards)

    def search_exactly(self, shard_id: int, query_D: Vector, k: int, live: Mask, passing: Mask) -> NumberedHits:
        """As `search`, in one shard, by the full vectors of all its points."""
        scan = self._scan(shard_id, live, passing, exact=True)
        with engine_errors("searched"):
            return scan.ask(engine.Query.Nearest(query_D.tolist()), k, surely=True).hits

    def _scan(self, shard_id: int, live: Mask, passing: Mask, *, exact: bool = False) -> ShardScan:
        first = shard_id * SHARD_POINTS
        numbers = slice(first, first + SHARD_POINTS)
        return ShardScan(self._shard(shard_id), first, live[numbers], passing[numbers], exact=exact)

    def get(self, numbers: Sequence[int], *, vectors: bool) -> dict[int, Point]:
        """The points with these numbers, by number. Numbers that are not stored are left out."""
        points: dict[int, Point] = {}
        for shard_id, shard_numbers in _by_shard(numbers, int):
            with engine_errors("read"):
                records = self._shard(shard_id).retrieve(list(shard_numbers), True, vectors)
            points |= {record.id: _from_engine(record) for record in records}
        return points

    def heads(self, page_size: int) -> Iterator[list[tuple[int, str]]]:
        """Number and head of every point, in pages. Call this at the start, when every shard is open."""
        for shard in self._shards:
            offset = None
            while True:
                request = engine.ScrollRequest(offset=offset, limit=page_size, with_payload=[_HEAD], with_vector=False)
                with engine_errors("read"):
                    records, offset = shard.scroll(request)
                yield [(record.id, record.payload[_HEAD]) for record in records]
                if offset is None:
                    break

    def pending_erasures(self) -> dict[int, Micros]:
        """The shards whose files still hold the vector of a deleted point, with the time of the oldest such deletion.
        Any thread may call this."""
        return self._erasures.oldest_deletions()

    def rewrite(self, shard_id: int) -> Generator[None, None, None]:
        """Replaces the shard by a copy without the deleted points. A generator: between two `next()` calls you may
        search but not write. If it is closed before its end, nothing has changed. Raises TierUnavailable."""
        shard = self._shard(shard_id)
        with shard_folders.new_folder(self._folder, shard_id) as new:
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
                self._replace(shard_id, new)
                self._erasures.discard(shard_id)

    def _copy(self, shard: Any, copy: Any) -> Iterator[None]:
        offset, num_changes = None, 0
        while True:
            request = engine.ScrollRequest(offset=offset, limit=_COPY_POINTS, with_payload=True, with_vector=True)
            with engine_errors("rewritten"):
                records, offset = shard.scroll(request)
                points = [_to_engine(_from_engine(record)) for record in records]
                if points:
                    copy.update(engine.UpdateOperation.upsert_points(points))
                num_changes += len(points)
                if num_changes >= _BUILD_AFTER_POINTS or offset is None:
                    copy.optimize()
                    num_changes = 0
            yield
            if offset is None:
                return

    def _replace(self, shard_id: int, new: Path) -> None:
        """If this fails half way, the next `_shard(shard_id)` opens the folder that is there, old or new."""
        old_shard, self._shards[shard_id] = self._shards[shard_id], None
        old_shard.close()
        shard_folders.swap(new, self._folder / str(shard_id))
        self._unflushed.discard(shard_id)
        self._shard(shard_id)

    def _shard(self, shard_id: int) -> Any:
        if self._shards[shard_id] is None:
            with engine_errors("opened"):
                shard_folders.recover_shard(self._folder, shard_id)
                self._shards[shard_id], self._num_changes[shard_id] = self._load(shard_id)
        return self._shards[shard_id]

    def _open_or_create(self, shard_id: int) -> None:
        """A missing shard is created in a temporary folder, which is then renamed. So a kill leaves a whole shard or
        none."""
        folder = self._folder / str(shard_id)
        if not folder.exists():
            new = self._folder / "new"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            engine.EdgeShard.create(str(new), self._config()).close()
            new.rename(folder)
        shard, num_changes = self._load(shard_id)
        self._shards.append(shard)
        self._num_changes.append(num_changes)

    def _load(self, shard_id: int) -> tuple[Any, int]:
        """The shard, and how many of its points wait for a segment to be built."""
        shard = engine.EdgeShard.load(str(self._folder / str(shard_id)), self._config())
        state = shard.info()
        return shard, max(0, state.points_count - state.indexed_vectors_count)

    def _config(self) -> Any:
        quantization = engine.ScalarQuantizationConfig(type=engine.ScalarType.Int8, memory=engine.Memory.Pinned)
        point_kb = self._dimension * 4 / 1024
        return engine.EdgeConfig(
            vectors=engine.EdgeVectorParams(
                size=self._dimension, distance=engine.Distance.Dot, memory=engine.Memory.Cached
            ),
            # m=0, no graph: scans are exact, and building a segment costs a seventh of what it costs with a graph.
            hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            quantization_config=quantization if self._quantize else None,
            optimizers=engine.EdgeOptimizersConfig(
                default_segment_number=2,
                max_segment_size=math.ceil(_MAX_SEGMENT_POINTS * point_kb),
                indexing_threshold=math.ceil(_MIN_BUILT_POINTS * point_kb),
            ),
            max_search_threads=_SEARCH_THREADS,
            # Without its write-ahead log the engine lost points of earlier flushes in 4 of 100 kills during a flush.
            wal_enabled=True,
        )

    def _note_written(self, shard_id: int, num_points: int) -> None:
        self._num_changes[shard_id] += num_points
        self._unflushed.add(shard_id)


def _by_shard(items: Sequence[Any], number_of: Callable[[Any], int]) -> Iterator[tuple[int, list[Any]]]:
    groups: dict[int, list[Any]] = {}
    for item in items:
        groups.setdefault(number_of(item) // SHARD_POINTS, []).append(item)
    yield from sorted(groups.items())


def _to_engine(point: Point) -> Any:
    payload = {_HEAD: point.head} if point.body is None else {_HEAD: point.head, _BODY: point.body}
    return engine.Point(id=point.number, vector={} if point.vector is None else point.vector.tolist(), payload=payload)


def _from_engine(record: Any) -> Point:
    vector = np.array(record.vector, np.float32) if isinstance(record.vector, list) else None
    return Point(record.id, vector, record.payload[_HEAD], record.payload.get(_BODY))
