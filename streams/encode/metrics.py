"""The encode stage's metrics for Prometheus. The encoder has its own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from schemas.ids import Kind

_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class EncodeMetrics:
    """Any thread may call it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waits = Histogram(
            "nearline_encode_queue_wait_seconds",
            "From the time a turn is submitted to the time it begins",
            ["kind"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._tokenise = Counter(
            "nearline_encode_tokenise_seconds", "Time to make prompts of contexts", ["kind"], registry=registry
        )
        self._outcomes = Counter(
            "nearline_encode_contexts",
            "Contexts by outcome: encoded or dead_letter",
            ["kind", "outcome"],
            registry=registry,
        )

    def turn(self, kind: Kind, waited_s: float, tokenise_s: float) -> None:
        self._waits.labels(kind).observe(waited_s)
        self._tokenise.labels(kind).inc(tokenise_s)

    def batch(self, kind: Kind, encoded: int, dead: int) -> None:
        self._outcomes.labels(kind, "encoded").inc(encoded)
        self._outcomes.labels(kind, "dead_letter").inc(dead)
