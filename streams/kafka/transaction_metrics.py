"""How long a stage's Kafka transactions take, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Histogram

_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class TransactionMetrics:
    """Any thread may call it."""

    def __init__(self, stage: str, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "nearline_transaction_seconds",
            "From the beginning of a transaction until it is committed and the stage's own state is written",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._seconds = seconds.labels(stage)

    def took(self, seconds: float) -> None:
        self._seconds.observe(seconds)
