"""The last hour of a few figures, one value for each step, and how many events were fresh in it. Bounded.

One thread adds; any thread reads. Knows nothing of where the figures come from.
"""

from collections import deque
from collections.abc import Mapping
from threading import Lock
from typing import Final, NamedTuple

from msgspec import Struct

STEP_S: Final = 6.0
HOUR_S: Final = 3600.0
_MOST_SERIES: Final = 64
"""More would be a page that nobody reads. What is left out are the last names."""
_DIGITS: Final = 4


class Fresh(NamedTuple):
    """Of how many events it was measured how long they took, and how many of them took no longer than promised.
    `deletes` are among the events."""

    events: int = 0
    events_in_time: int = 0
    deletes: int = 0
    deletes_in_time: int = 0

    def plus(self, other: "Fresh") -> "Fresh":
        return Fresh(*map(sum, zip(self, other, strict=True)))


class Columns(Struct, frozen=True):
    """`at_s`: seconds since 1970. Each series has a value for each of them; None where it was not known."""

    at_s: list[int]
    series: dict[str, list[float | None]]


class _Sample(NamedTuple):
    at_s: float
    values: Mapping[str, float]
    fresh: Fresh


class History:
    def __init__(self, keep_s: float = HOUR_S, step_s: float = STEP_S) -> None:
        self._keep_s = keep_s
        self._samples: deque[_Sample] = deque(maxlen=max(1, round(keep_s / step_s)))
        self._lock = Lock()

    def add(self, at_s: float, values: Mapping[str, float], fresh: Fresh) -> None:
        """`at_s`: seconds since 1970. `fresh`: of the events since the sample before."""
        names = sorted(values)[:_MOST_SERIES]
        with self._lock:
            self._samples.append(_Sample(at_s, {name: values[name] for name in names}, fresh))
            while self._samples[0].at_s < at_s - self._keep_s:
                self._samples.popleft()

    def columns(self, since_s: float = 0.0) -> Columns:
        """All samples after this time, oldest first."""
        samples = [sample for sample in self._copy() if sample.at_s > since_s]
        names = sorted({name for sample in samples for name in sample.values})
        return Columns(
            [int(sample.at_s) for sample in samples],
            {name: [_rounded(sample.values.get(name)) for sample in samples] for name in names},
        )

    def fresh(self, within_s: float) -> Fresh:
        """Of the events of so many seconds before the newest sample."""
        samples, total = self._copy(), Fresh()
        for sample in samples:
            if sample.at_s > samples[-1].at_s - within_s:
                total = total.plus(sample.fresh)
        return total

    def _copy(self) -> list[_Sample]:
        with self._lock:
            return list(self._samples)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
