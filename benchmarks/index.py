"""How many points a second the embedded cold tier writes durably, compared with the bare engine. Both build the points
from the same vectors, store the same payload and flush after every batch. The tier also checks the vectors, guards the
revisions and keeps its point table. The building of segments, which the bare engine leaves out, is timed separately.

`python -m benchmarks.index [--points N] [--json F]`. Tier and engine alternate; the rates are medians of five rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import qdrant_edge as engine

from benchmarks.kit.table import Figure, report
from benchmarks.kit.vectors import draw, posts
from indexer.cold.edge.tier import EdgeColdTier
from indexer.settings import ColdSettings
from indexer.tiers import IndexRecord
from nearline.up.process import collect_rarely
from schemas.embeddings import Vector
from schemas.ids import Generation, Offset, Partition
from schemas.times import now_us

_BATCH: Final = 1_000
"""The index loop writes so many records at once under load."""
_ROUNDS: Final = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    collect_rarely()
    vectors = draw(arguments.points, arguments.dimension)
    rates, shares = zip(*(_round(vectors) for _ in range(_ROUNDS)), strict=True)
    names = (
        "bare engine, flushed",
        "bare engine, without the time of flushes",
        "cold tier, flushed",
        "cold tier, flushed and with segments",
    )
    figures = [
        Figure(f"{name}, points/s", statistics.median(column))
        for name, column in zip(names, zip(*rates, strict=True), strict=True)
    ]
    figures += [
        Figure("cold tier / bare engine, both flushed: lowest round", min(shares)),
        Figure("cold tier / bare engine, both flushed: highest round", max(shares)),
        Figure("cold tier / bare engine, both flushed: median", statistics.median(shares), 0.7),
    ]
    return report(figures, arguments.json)


def _round(vectors: Vector) -> tuple[tuple[float, ...], float]:
    """Points/s of the four ways, and the tier's rate divided by that of the bare engine."""
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        bare_s, flushes_s = _bare(Path(folder) / "bare", vectors)
        tier_s, segments_s = _tier(Path(folder) / "tier", vectors)
    times_s = (bare_s, bare_s - flushes_s, tier_s, tier_s + segments_s)
    return tuple(len(vectors) / seconds for seconds in times_s), bare_s / tier_s


def _bare(folder: Path, vectors: Vector) -> tuple[float, float]:
    """Seconds in total, and seconds of the flushes alone."""
    folder.mkdir()
    shard = engine.EdgeShard.create(
        str(folder),
        engine.EdgeConfig(vectors=engine.EdgeVectorParams(size=vectors.shape[1], distance=engine.Distance.Dot)),
    )
    flushing = _Timed()
    head = '["post-123456",1,false,1760000000000000,3,123456,"author-12345","en",1760000000000000]'
    start = time.perf_counter()
    for first in range(0, len(vectors), _BATCH):
        rows: list[Any] = [
            engine.Point(id=number, vector=vector.tolist(), payload={"head": head})
            for number, vector in enumerate(vectors[first : first + _BATCH], first)
        ]
        shard.update(engine.UpdateOperation.upsert_points(rows))
        flushing.time(shard.flush)
    took = time.perf_counter() - start
    shard.close()
    return took, flushing.seconds


def _tier(folder: Path, vectors: Vector) -> tuple[float, float]:
    """Seconds of writes and flushes, and seconds of building segments."""
    now = now_us()
    records = [
        IndexRecord(embedding, Partition(number % 8), Offset(number))
        for number, embedding in enumerate(posts(vectors, newest_us=now, spacing_us=1000))
    ]
    segments = _Timed()
    tier = EdgeColdTier(folder, Generation("benchmark"), vectors.shape[1], ColdSettings())
    build_segments = tier._posts.shards.build_segments
    tier._posts.shards.build_segments = lambda: segments.time(build_segments)  # type: ignore[method-assign]
    start = time.perf_counter()
    for first in range(0, len(records), _BATCH):
        tier.write("post", records[first : first + _BATCH])
        tier.flush()
    took = time.perf_counter() - start
    tier.close()
    return took - segments.seconds, segments.seconds


class _Timed:
    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, call: Any) -> Any:
        start = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - start
        return result


if __name__ == "__main__":
    raise SystemExit(main())
