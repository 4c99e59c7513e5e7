"""How much slower the hot tier's searches are while posts come in than when nothing comes in. The tier is full, and
every search asks for the best 2,000 posts. Half of what comes in are new posts, each of which pushes out the oldest
post; half are new revisions of posts that are there.

`python -m benchmarks.hot_tier [--posts N] [--rate N] [--searches N] [--device D] [--json F]`
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.kit.table import Figure, report
from benchmarks.kit.vectors import draw, post, posts
from indexer.hot.tier import MatrixHotTier
from indexer.settings import HotSettings
from nearline.up.process import collect_rarely, share_quickly
from schemas.embeddings import PostEmbedding, Vector
from schemas.ids import Micros
from schemas.times import now_us

_BATCH: Final = 200
"""The hot feed applies so many posts at once when it polls every 20 ms and 10,000 posts come in a second."""
_K: Final = 2_000
_ROUNDS: Final = 6
_WRITING_S: Final = 45
"""Posts for so many seconds are made before anything is timed, because making them is not the tier's work."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rate", type=int, default=10_000, help="upserts a second")
    parser.add_argument("--searches", type=int, default=1_500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    collect_rarely()
    share_quickly()
    vectors = draw(arguments.posts, arguments.dimension)
    tier = MatrixHotTier(arguments.dimension, HotSettings(capacity=arguments.posts, device=arguments.device))
    filling_s = _fill(tier, vectors)
    queries = draw(64, arguments.dimension, seed=1)
    writer = Writer(tier, vectors, arguments.rate)
    idle: list[float] = []
    busy: list[float] = []
    # In alternation, so that a slower or faster machine meanwhile affects both.
    for _ in range(_ROUNDS):
        idle += _search_times(tier, queries, arguments.searches // _ROUNDS)
        with writer.writing():
            busy += _search_times(tier, queries, arguments.searches // _ROUNDS)
    p99_idle, p99_busy = float(np.percentile(idle, 99)), float(np.percentile(busy, 99))
    figures = [
        Figure("upserts/s without searches", arguments.posts / filling_s),
        Figure("upserts/s during searches", writer.per_second, 0.95 * arguments.rate),
        Figure("search p50 without upserts, ms", float(np.median(idle)) * 1e3),
        Figure("search p99 without upserts, ms", p99_idle * 1e3),
        Figure("search p50 during upserts, ms", float(np.median(busy)) * 1e3),
        Figure("search p99 during upserts, ms", p99_busy * 1e3),
        Figure("p99 during upserts / p99 without", p99_busy / p99_idle, 1.5, "at_most"),
    ]
    return report(figures, arguments.json)


def _fill(tier: MatrixHotTier, vectors: Vector) -> float:
    made = list(posts(vectors, newest_us=now_us(), spacing_us=1000))
    start = time.perf_counter()
    for first in range(0, len(made), _BATCH):
        tier.upsert(made[first : first + _BATCH])
    return time.perf_counter() - start


def _search_times(tier: MatrixHotTier, queries: Vector, count: int) -> list[float]:
    times: list[float] = []
    for number in range(count):
        start = time.perf_counter()
        tier.search(queries[number % len(queries)], _K)
        times.append(time.perf_counter() - start)
    return times


class Writer:
    """Upserts posts at a steady rate, in its own thread."""

    def __init__(self, tier: MatrixHotTier, vectors: Vector, rate: int) -> None:
        self._tier = tier
        self._rate = rate
        self._batches = iter(self._make(vectors, max(1, _WRITING_S * rate // _BATCH)))
        self._sent = 0
        self._seconds = 0.0

    @property
    def per_second(self) -> float:
        return self._sent / self._seconds

    @contextmanager
    def writing(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _make(self, vectors: Vector, count: int) -> list[list[PostEmbedding]]:
        now = now_us()
        num_old = len(vectors)
        batches: list[list[PostEmbedding]] = []
        for number in range(count):
            rows = np.random.default_rng(number).integers(0, len(vectors), _BATCH)
            # Every second post of a batch is a new one.
            ids = [row if at % 2 else num_old + number * _BATCH + at for at, row in enumerate(rows.tolist())]
            pairs = zip(ids, rows.tolist(), strict=True)
            batches.append([post(p, vectors[row], created_at_us=Micros(now), revision=number + 2) for p, row in pairs])
        return batches

    def _run(self, stop: threading.Event) -> None:
        start = time.perf_counter()
        sent = 0
        while not stop.wait(max(0.0, start + sent / self._rate - time.perf_counter())):
            batch = next(self._batches)
            self._tier.upsert(batch)
            sent += len(batch)
        self._sent += sent
        self._seconds += time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
