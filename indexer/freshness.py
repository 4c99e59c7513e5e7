"""Freshness: seconds from the Kafka timestamp of an input record to its effect being searchable.

Owns the samples of the last minutes. Knows neither Kafka nor which tier the samples come from.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from statistics import quantiles
from threading import Lock
from typing import NamedTuple


class Freshness(NamedTuple):
    """Percentiles in seconds. None if nothing was indexed within the window."""

    p50: float | None
    p99: float | None
    samples: int


class FreshnessWindow:
    """The samples of the last `window_s`, at most `capacity` of them. Any thread may add and read."""

    def __init__(
        self, window_s: float = 300.0, capacity: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._window_s = window_s
        self._clock = clock
        self._lock = Lock()
        self._samples: deque[tuple[float, float]] = deque(maxlen=capacity)

    def add(self, seconds: Iterable[float]) -> None:
        """A negative sample counts as zero: the clock of another machine may run ahead."""
        now = self._clock()
        with self._lock:
            self._drop_before(now - self._window_s)
            self._samples.extend((now, max(0.0, sample)) for sample in seconds)

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
        if not samples:
            return Freshness(None, None, 0)
        # Plain Python, because `nearline status` loads this module too, and NumPy would take most of its time.
        cuts = quantiles(samples if len(samples) > 1 else samples * 2, n=100, method="inclusive")
        return Freshness(cuts[49], cuts[98], len(samples))
