"""The embedded cold tier's metrics for Prometheus. How fresh it is the loop says that fills it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.ids import KINDS, Generation

if TYPE_CHECKING:
    from indexer.cold.edge.tier import EdgeColdTier


class ColdMetrics(Collector):
    """Reads the tier at every scrape."""

    def __init__(self, tier: "EdgeColdTier", generation: Generation) -> None:
        self._tier, self._generation = tier, generation

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "nearline_cold_oldest_erasure_seconds",
            "Since the oldest deletion whose vector is still in the files; must stay below kafka.erase_within_s",
            value=self._tier.oldest_pending_erasure_s(),
        )
        labels = ["kind", "generation"]
        live = GaugeMetricFamily("nearline_cold_entities", "Live posts and members", labels=labels)
        tombstones = GaugeMetricFamily(
            "nearline_cold_tombstones", "Deleted posts and members that keep older records out", labels=labels
        )
        for kind in KINDS:
            live.add_metric([kind, self._generation], self._tier.count(kind))
            tombstones.add_metric([kind, self._generation], self._tier.num_tombstones(kind))
        yield from (live, tombstones)
