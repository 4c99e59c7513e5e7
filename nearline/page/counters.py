"""What the processes' counters say: how much they count in a second, and how many events were fresh.

Counters begin at zero when a process starts, and a process that is seen for the first time has counted for a while. So
only what is counted from one look to the next is taken. Knows no HTTP.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from nearline.page.history import Fresh

Scraped = Sequence[tuple[str, Iterable[Metric]]]
"""By process."""
_Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name and labels."""

FRESHNESS: Final = "nearline_freshness_seconds"
COUNTED: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "contexts_records": ("nearline_contexts_records_total", {}),
    "encoded_contexts": ("nearline_encode_contexts_total", {"outcome": "encoded"}),
    "encoded_tokens": ("nearline_encode_tokens_total", {}),
    "indexed": (f"{FRESHNESS}_count", {"tier": "cold"}),
    "answers": ("nearline_retrieve_answers_total", {}),
    "whole_answers": ("nearline_retrieve_answers_total", {"outcome": "whole"}),
}
"""What is counted for the throughput: the sample's name, and the labels that it must have."""
WANTED: Final = tuple(sorted({name for name, _ in COUNTED.values()} | {f"{FRESHNESS}_bucket"}))
"""The names with which the lines of metrics begin that are read here."""


class Counted(NamedTuple):
    """From one look to the next. `per_s`: by the names of COUNTED; those that no process counts are missing."""

    per_s: Mapping[str, float]
    fresh: Fresh


class Counters:
    """One thread."""

    def __init__(self, within_s: float) -> None:
        """`within_s`: an event is fresh if it took no longer; one of the histogram's bounds."""
        self._le = str(float(within_s))
        self._last: dict[str, dict[_Series, float]] = {}
        self._last_at_s: float | None = None

    def look(self, at_s: float, scraped: Scraped) -> Counted:
        """`at_s`: of a clock that only goes forward. A process that does not answer this time is left out: at the next
        look it goes on from where it was."""
        grown: list[tuple[Sample, float]] = []
        for process, metrics in scraped:
            before, now = self._last.get(process), {}
            for sample in (sample for metric in metrics for sample in metric.samples):
                series = sample.name, tuple(sorted(sample.labels.items()))
                now[series] = sample.value
                # Of a process that is known, the series of a label that is new counts from zero.
                grown.append((sample, 0.0 if before is None else _growth(before.get(series, 0.0), sample.value)))
            self._last[process] = now
        passed_s = 0.0 if self._last_at_s is None else at_s - self._last_at_s
        self._last_at_s = at_s
        return Counted(_per_s(grown, passed_s) if passed_s > 0 else {}, self._fresh(grown))

    def _fresh(self, grown: Iterable[tuple[Sample, float]]) -> Fresh:
        counts: Counter[tuple[bool, str]] = Counter()
        for sample, growth in grown:
            if sample.name == f"{FRESHNESS}_bucket" and sample.labels.get("tier") == "hot":
                counts[sample.labels.get("kind") == "delete", sample.labels["le"]] += round(growth)
        deletes, deletes_in_time = counts[True, "+Inf"], counts[True, self._le]
        return Fresh(
            counts[False, "+Inf"] + deletes, counts[False, self._le] + deletes_in_time, deletes, deletes_in_time
        )


def _growth(before: float, now: float) -> float:
    """A process that was started again has begun at zero."""
    return now - before if now >= before else now


def _per_s(grown: Sequence[tuple[Sample, float]], passed_s: float) -> dict[str, float]:
    per_s: dict[str, float] = {}
    for name, (of, labels) in COUNTED.items():
        growths = [growth for sample, growth in grown if sample.name == of and labels.items() <= sample.labels.items()]
        if growths:
            per_s[name] = sum(growths) / passed_s
    return per_s
