"""Freshness as a histogram for Prometheus, the same one in each process that fills a tier."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from indexer.freshness import BUCKETS_S, FreshKind, FreshnessCount, FreshnessCounts

_BOUNDS: Final = (*map(floatToGoString, BUCKETS_S), "+Inf")


def freshness_family() -> HistogramMetricFamily:
    """Without series; `add_freshness` adds those of a tier."""
    return HistogramMetricFamily(
        "nearline_freshness_seconds",
        "From an event's record to its effect being searchable in the tier",
        labels=["tier", "kind", "generation"],
    )


def add_freshness(
    family: HistogramMetricFamily, tier: str, generation: str, counts: Mapping[FreshKind, FreshnessCount]
) -> None:
    for kind, count in counts.items():
        buckets = list(zip(_BOUNDS, map(float, count.at_most), strict=True))
        family.add_metric([tier, kind, generation], buckets, count.sum_s)


class FreshnessMetric(Collector):
    """Of one tier, by the counts of the loop that fills it."""

    def __init__(self, tier: str, generation: str, freshness: FreshnessCounts) -> None:
        self._tier, self._generation, self._freshness = tier, generation, freshness

    def collect(self) -> Iterable[Metric]:
        family = freshness_family()
        add_freshness(family, self._tier, self._generation, self._freshness.counts())
        yield family
