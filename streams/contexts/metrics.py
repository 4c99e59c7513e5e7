"""The context stage's metrics for Prometheus. What a crash makes the stage do again is counted again."""

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas.ids import Kind
from streams.kafka.transaction_metrics import TransactionMetrics


class ContextMetrics:
    """One thread tells what it did; `compacted` is for any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.transactions = TransactionMetrics("contexts", registry)
        self._records = Counter(
            "nearline_contexts_records", "Records that the stage has read", ["topic"], registry=registry
        )
        self._not_applied = Counter(
            "nearline_contexts_not_applied",
            "Records that changed nothing, or not all that they say, by cause; dead letters are among them",
            ["cause"],
            registry=registry,
        )
        self._misplaced = Counter(
            "nearline_contexts_misplaced_records",
            "Records that were not in the partition of their key",
            ["topic"],
            registry=registry,
        )
        self._published = Counter(
            "nearline_contexts_published",
            "Contexts, at once or put off until their window ended",
            ["kind", "when"],
            registry=registry,
        )
        self._delayed = Gauge(
            "nearline_contexts_delayed_publications",
            "Posts and members that wait for the end of their window",
            ["kind"],
            registry=registry,
        )
        self._cells = Gauge(
            "nearline_contexts_stored_cells",
            "Pieces of rows that are stored, about; the row of a post or member has two or more",
            ["kind"],
            registry=registry,
        )

        self._compacted_at_s = time.time()
        Gauge(
            "nearline_contexts_compaction_age_seconds",
            "What was deleted longer ago is not in the files of the rows; must stay below kafka.erase_within_s",
            registry=registry,
        ).set_function(lambda: time.time() - self._compacted_at_s)

    def read(self, by_topic: Mapping[str, int]) -> None:
        for topic, number in by_topic.items():
            self._records.labels(topic).inc(number)

    def not_applied(self, by_cause: Mapping[str, int]) -> None:
        for cause, number in by_cause.items():
            self._not_applied.labels(cause.replace("-", "_")).inc(number)

    def misplaced(self, topic: str) -> None:
        self._misplaced.labels(topic).inc()

    def published(self, kind: Kind, at_once: int, put_off: int) -> None:
        self._published.labels(kind, "at_once").inc(at_once)
        self._published.labels(kind, "put_off").inc(put_off)

    def table_sizes(self, kind: Kind, num_delayed: int, num_cells: int) -> None:
        """As it is now, in the partitions that this worker owns."""
        self._delayed.labels(kind).set(num_delayed)
        self._cells.labels(kind).set(num_cells)

    def compacted(self, at_s: float) -> None:
        """When the full compaction began that is longest ago, of all partitions that this worker owns."""
        self._compacted_at_s = at_s
