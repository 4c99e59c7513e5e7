"""Freshness as a histogram for Prometheus, the same one in each process that fills a tier."""

from collections.abc import Mapping
from typing import Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from indexer.freshness import BUCKETS_S, FreshKind, FreshnessCount

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
