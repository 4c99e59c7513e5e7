"""Freshness: seconds from the Kafka timestamp of an input record to its effect being searchable.

Owns the samples of the last minutes, and counts of all samples since the start. Knows neither Kafka nor which tier the
samples come from.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from statistics import quantiles
from threading import Lock
from typing import Final, Literal, NamedTuple

FreshKind = Literal["post", "member", "delete"]
"""What becomes searchable: a post or a member that was created or changed, or the deletion of either."""
BUCKETS_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""The objective is a minute."""


class FreshnessCount(NamedTuple):
    """`at_most`: how many samples were at most as large as each of BUCKETS_S, and at last how many there were."""

    at_most: tuple[int, ...]
    sum_s: float


class FreshnessCounts:
    """Since the start. One thread adds; any thread may read."""

    def __init__(self) -> None:
        self._buckets: dict[FreshKind, list[int]] = {}
        self._sums_s: dict[FreshKind, float] = {}
        self._lock = Lock()

    def add(self, kind: FreshKind, seconds: float) -> None:
        """A negative sample counts as zero, as in the window."""
        with self._lock:
            buckets = self._buckets.setdefault(kind, [0] * (len(BUCKETS_S) + 1))
            buckets[bisect_left(BUCKETS_S, seconds)] += 1
            self._sums_s[kind] = self._sums_s.get(kind, 0.0) + max(0.0, seconds)

    def counts(self) -> Mapping[FreshKind, FreshnessCount]:
        with self._lock:
            return {
                kind: FreshnessCount(tuple(accumulate(buckets)), self._sums_s[kind])
                for kind, buckets in self._buckets.items()
            }


def added(
    first: Mapping[FreshKind, FreshnessCount], second: Mapping[FreshKind, FreshnessCount]
) -> dict[FreshKind, FreshnessCount]:
    """The counts of two that fill one tier."""
    sums = dict(first)
    for kind, count in second.items():
        before = sums.get(kind, FreshnessCount((0,) * len(count.at_most), 0.0))
        at_most = tuple(map(sum, zip(before.at_most, count.at_most, strict=True)))
        sums[kind] = FreshnessCount(at_most, before.sum_s + count.sum_s)
    return sums


class Freshness(NamedTuple):
    """Percentiles in seconds. None if nothing was indexed within the window. `newest_age_s`: how long ago the newest
    sample came, also before the window; None if there was none yet."""

    p50: float | None
    p99: float | None
    samples: int
    newest_age_s: float | None = None


class FreshnessWindow:
    """The samples of the last `window_s`, at most `capacity` of them. Any thread may add and read."""

    def __init__(
        self, window_s: float = 300.0, capacity: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_s = window_s
        self._clock = clock
        self._lock = Lock()
        self._samples: deque[tuple[float, float]] = deque(maxlen=capacity)
        self._newest_at: float | None = None

    def add(self, seconds: Iterable[float]) -> None:
        """A negative sample counts as zero: the clock of another machine may run ahead."""
        now = self._clock()
        with self._lock:
            self._drop_before(now - self._window_s)
            self._samples.extend((now, max(0.0, sample)) for sample in seconds)
            if self._samples and self._samples[-1][0] == now:
                self._newest_at = now

    def recent(self) -> list[float]:
        """The samples within the window, oldest first."""
        with self._lock:
            self._drop_before(self._clock() - self._window_s)
            return [sample for _, sample in self._samples]

    def _drop_before(self, start: float) -> None:
        while self._samples and self._samples[0][0] < start:
            self._samples.popleft()

    def summary(self) -> Freshness:
        samples = self.recent()
        newest_age_s = None if self._newest_at is None else self._clock() - self._newest_at
        if not samples:
            return Freshness(None, None, 0, newest_age_s)
        # Plain Python, because `nearline status` loads this module too, and NumPy would take most of its time.
        cuts = quantiles(samples if len(samples) > 1 else samples * 2, n=100, method="inclusive")
        return Freshness(cuts[49], cuts[98], len(samples), newest_age_s)
