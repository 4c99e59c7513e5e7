"""The index stage's records by outcome, for Prometheus. How fresh they are says `indexer/freshness_metric.py`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.ids import Generation

if TYPE_CHECKING:
    from streams.index.loop import IndexLoop


class IndexMetrics(Collector):
    """Reads the loop's counts at every scrape."""

    def __init__(self, loop: "IndexLoop", generation: Generation) -> None:
        self._loop, self._generation = loop, generation

    def collect(self) -> Iterable[Metric]:
        records = CounterMetricFamily(
            "nearline_index_records", "Records by outcome: indexed or dead_letter", labels=["outcome", "generation"]
        )
        records.add_metric(["indexed", self._generation], self._loop.num_indexed)
        records.add_metric(["dead_letter", self._generation], self._loop.num_dead_letters)
        yield records
