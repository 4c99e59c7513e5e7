"""The embedded cold tier's metrics for Prometheus."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from indexer.cold.edge.tier import EdgeColdTier


class ColdMetrics(Collector):
    """Reads the tier at every scrape."""

    def __init__(self, tier: "EdgeColdTier") -> None:
        self._tier = tier

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "nearline_cold_oldest_erasure_seconds",
            "Since the oldest deletion whose vector is still in the files; must stay below kafka.erase_within_s",
            value=self._tier.oldest_pending_erasure_s(),
        )
