"""The encode stage's metrics for Prometheus. The encoder has its own."""

import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from schemas.ids import Kind
from streams.kafka.transaction_metrics import TransactionMetrics

_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class EncodeMetrics:
    """Any thread may call it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.transactions = TransactionMetrics("encode", registry)
        self.post_vectors = PostVectorMetrics(registry)
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


class PostVectorMetrics:
    """Of `post-vectors`. The loop's thread calls it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Counter(
            "nearline_post_vectors",
            "Records of post-vectors by what became of an embedding: written, deleted or skipped",
            ["outcome"],
            registry=registry,
        )
        self._refusals = Counter(
            "nearline_post_vectors_refusals",
            "How often the broker refused the writing of post-vectors, such as for a missing right; it is tried again",
            registry=registry,
        )
        self._seconds = Histogram(
            "nearline_post_vectors_seconds",
            "From an event's record to its post's vector in post-vectors",
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def written(self, *, deleted: bool) -> None:
        self._records.labels("deleted" if deleted else "written").inc()

    def skipped(self) -> None:
        self._records.labels("skipped").inc()

    def refused(self) -> None:
        self._refusals.inc()

    def committed(self, origins_ms: Iterable[int]) -> None:
        """The events whose posts' vectors can be read now."""
        now_s = time.time()
        for origin_ms in origins_ms:
            self._seconds.observe(max(0.0, now_s - origin_ms / 1000))
