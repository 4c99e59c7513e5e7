"""The trending stage's metrics for Prometheus. What a crash makes the stage do again is counted again."""

from collections.abc import Mapping
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

Outcome = Literal["counted", "weightless", "unreadable", "revoked"]
"""What became of a record. weightless: an impression, which says nothing about its post. unreadable: no event; the
context stage makes a dead letter of it. revoked: another worker has its partition by now, and reads it too."""

_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class TrendingMetrics:
    """The stage's thread tells what it did."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Counter(
            "nearline_trending_records",
            "Records of activity by outcome: counted, weightless, unreadable or revoked",
            ["outcome"],
            registry=registry,
        )
        self._lists = Counter("nearline_trending_lists", "Lists that the broker has taken", registry=registry)
        self._ranking = Histogram(
            "nearline_trending_ranking_seconds",
            "Time to rank the posts of one partition for its list; nothing is read meanwhile",
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def read(self, by_outcome: Mapping[Outcome, int]) -> None:
        for outcome, number in by_outcome.items():
            self._records.labels(outcome).inc(number)

    def ranked(self, seconds: float) -> None:
        self._ranking.observe(seconds)

    def published(self, num_lists: int) -> None:
        self._lists.inc(num_lists)
