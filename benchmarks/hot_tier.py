"""The hot tier, full, while posts come in: how much slower its searches are than when nothing comes in, how long
anything holds a search up, how much memory a post takes, and what a batch of eight searches costs. Every search asks
for the best 2,000 posts. Half of what comes in are new posts, each of which pushes out the oldest change; half are new
revisions of posts that are there.

`python -m benchmarks.gpu` asks a GPU for more.

`python -m benchmarks.hot_tier [--posts N] [--rate N] [--searches N] [--threads N] [--device D] [--json F]`
"""

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from benchmarks.kit.hot_load import SPACING_US, Probes, Records, Writer
from benchmarks.kit.table import Figure, report
from benchmarks.kit.vectors import draw
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, HotQuery, SnapshotMoment
from nearline.up.process import collect_rarely, share_quickly
from schemas.ids import Micros

_K: Final = 2_000
_ROUNDS: Final = 6
_WRITING_S: Final = 45
"""Posts for so many seconds are made before anything is timed, because making them is not the tier's work."""
_GROWTH: Final = 100_000
"""The last posts of the filling, which come at the steady rate: once or twice more memory is needed for them."""
_IDLE_S: Final = 10.0
_MANY: Final = 1_000_000
"""With fewer posts the figure of memory is mostly that of the process."""
_EXPIRED: Final = 100_000
"""Posts that expire at once."""
_WINDOW_S: Final = 1e6


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._records = Records(arguments.dimension)
        settings = HotSettings(
            capacity=arguments.posts, window_s=_WINDOW_S, device=arguments.device, threads=arguments.threads
        )
        self._ids = IdTable()
        self.tier = MatrixHotTier(arguments.dimension, settings, self._ids)
        self._queries = [
            HotQuery(vector, _K, NO_FILTERS, np.empty(0, np.int32)) for vector in draw(64, arguments.dimension, seed=1)
        ]

    def filling(self) -> list[Figure]:
        """Fills the tier, the last posts at the steady rate with probes beside them."""
        before = _memory()
        count = self._arguments.posts - _GROWTH
        seconds = 0.0
        for batch in self._records.new_posts(count):
            start = time.perf_counter()
            self.tier.apply(batch)
            seconds += time.perf_counter() - start
        a_post = (_memory() - before) / count - 4 * self._arguments.dimension
        bound = 250 if count >= _MANY else None
        last = list(self._records.new_posts(_GROWTH))
        idle = self._longest_pause(lambda: time.sleep(_IDLE_S))
        longest = self._longest_pause(Writer(self.tier, iter(last), self._arguments.rate).finish)
        return [
            Figure("upserts/s without searches", count / seconds),
            Figure("bytes a post beyond the vectors", a_post, bound, "at_most"),
            Figure("longest pause while nothing happens, ms", idle * 1e3),
            Figure("longest pause while it grows, ms", longest * 1e3, 20, "at_most"),
        ]

    def batches(self) -> list[Figure]:
        one: list[float] = []
        eight: list[float] = []
        for number in range(max(5, self._arguments.searches // 20)):
            one.append(self._seconds(self._queries[number % 64 :][:1]))
            eight.append(self._seconds(self._queries[number % 56 :][:8]))
        ratio = float(np.median(eight) / np.median(one))
        return [
            Figure("one search, ms", float(np.median(one)) * 1e3),
            Figure("a batch of 8 searches, ms", float(np.median(eight)) * 1e3),
            Figure("a batch of 8 / one", ratio, 2.5, "at_most"),
        ]

    def writing(self) -> list[Figure]:
        """Searches with and without changes, in alternation, so that a slower or faster machine meanwhile affects
        both."""
        rate, searches = self._arguments.rate, max(1, self._arguments.searches // _ROUNDS)
        changes = self._records.changes(_WRITING_S * rate, self._arguments.posts // 2)
        writer = Writer(self.tier, iter(changes), rate)
        idle: list[float] = []
        busy: list[float] = []
        for _ in range(_ROUNDS):
            idle += [self._seconds(self._queries[number % 64 :][:1]) for number in range(searches)]
            with writer.writing():
                busy += [self._seconds(self._queries[number % 64 :][:1]) for number in range(searches)]
        longest = self._longest_pause(writer.finish)
        p99_idle, p99_busy = float(np.percentile(idle, 99)), float(np.percentile(busy, 99))
        return [
            Figure("upserts/s during searches", writer.per_second, 0.95 * rate),
            Figure("search p50 without upserts, ms", float(np.median(idle)) * 1e3),
            Figure("search p99 without upserts, ms", p99_idle * 1e3),
            Figure("search p50 during upserts, ms", float(np.median(busy)) * 1e3),
            Figure("search p99 during upserts, ms", p99_busy * 1e3),
            Figure("p99 during upserts / p99 without", p99_busy / p99_idle, 1.5, "at_most"),
            Figure("longest pause during upserts, ms", longest * 1e3, 20, "at_most"),
        ]

    def snapshot(self) -> list[Figure]:
        with tempfile.TemporaryDirectory() as name:
            moment = SnapshotMoment({}, Micros(0))
            start = time.perf_counter()
            longest = self._longest_pause(lambda: self.tier.save(Path(name), moment).result())
            saving_s = time.perf_counter() - start
            loaded = MatrixHotTier(self._arguments.dimension, HotSettings(capacity=self._arguments.posts), IdTable())
            start = time.perf_counter()
            loaded.load(Path(name))
            loading_s = time.perf_counter() - start
        return [
            Figure("longest pause during a snapshot, ms", longest * 1e3, 20, "at_most"),
            Figure("seconds to write a snapshot", saving_s),
            Figure("posts/s read from a snapshot", self.tier.count() / loading_s),
        ]

    def expiry(self) -> list[Figure]:
        oldest = self._records.num_records - self._arguments.posts + _EXPIRED
        now = Micros(int(_WINDOW_S * 1e6) + oldest * SPACING_US)
        longest = self._longest_pause(lambda: self.tier.expire(now))
        return [Figure("longest pause while many posts expire, ms", longest * 1e3, 20, "at_most")]

    def _longest_pause(self, action: Callable[[], object]) -> float:
        gc.collect()
        probes = Probes(self.tier, self._arguments.dimension)
        with probes.probing():
            action()
        return probes.longest_s

    def _seconds(self, queries: list[HotQuery]) -> float:
        start = time.perf_counter()
        self.tier.search(queries)
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=500_000, help="at least 200,000")
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rate", type=int, default=10_000, help="upserts a second")
    parser.add_argument("--searches", type=int, default=1_500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    collect_rarely()
    share_quickly()
    bench = Bench(arguments)
    figures = [*bench.filling(), *bench.batches(), *bench.writing()]
    if arguments.device == "cpu":
        figures += bench.snapshot()
    figures += bench.expiry()
    return report(figures, arguments.json)


def _memory() -> int:
    """Bytes of this process in main memory, without what was freed and not given back yet."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    raise SystemExit(main())
