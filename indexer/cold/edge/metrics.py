"""The embedded cold tier's metrics for Prometheus."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer.freshness import FreshnessCounts
from indexer.freshness_metric import add_freshness, freshness_family
from schemas.ids import KINDS, Generation

if TYPE_CHECKING:
    from indexer.cold.edge.tier import EdgeColdTier


class ColdMetrics(Collector):
    """Reads the tier at every scrape."""

    def __init__(self, tier: "EdgeColdTier", generation: Generation, freshness: FreshnessCounts) -> None:
        """`freshness`: of the loop that fills the tier."""
        self._tier, self._generation, self._freshness = tier, generation, freshness

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "nearline_cold_oldest_erasure_seconds",
            "Since the oldest deletion whose vector is still in the files; must stay below kafka.erase_within_s",
            value=self._tier.oldest_pending_erasure_s(),
        )
        live = GaugeMetricFamily("nearline_cold_entities", "Live posts and members", labels=["kind", "generation"])
        for kind in KINDS:
            live.add_metric([kind, self._generation], self._tier.count(kind))
        yield live
        freshness = freshness_family()
        add_freshness(freshness, "cold", self._generation, self._freshness.counts())
        yield freshness
