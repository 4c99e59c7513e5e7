"""The retriever's metrics for Prometheus. Each app has its own registry, so that two apps in one process do not mix."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from retriever.answer.cold.kept_answers import KeptCounts
from retriever.answer.question import Answer
from retriever.feed.hot_feed import HotFeed
from retriever.service.answering import Answering

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServeMetrics:
    """Any thread may call the methods."""

    def __init__(self, retriever: Answering, feed: HotFeed) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(retriever, feed))
        self._steps = Histogram(
            "nearline_retrieve_seconds", "Time of one step", ["step"], buckets=_BUCKETS_S, registry=self._registry
        )
        self._answers = Counter(
            "nearline_retrieve_answers", "Answers: whole, partial, unavailable", ["outcome"], registry=self._registry
        )
        self._refused = Counter(
            "nearline_refused_requests",
            "Requests refused because they would have been answered too late",
            registry=self._registry,
        )
        self._late = Counter(
            "nearline_late_requests", "Requests that were begun and not answered in time", registry=self._registry
        )
        self._candidates = Counter(
            "nearline_candidates", "Candidates by where they came from", ["tier"], registry=self._registry
        )

    def watch_waiting(self, number: Callable[[], float]) -> None:
        Gauge("nearline_waiting_requests", "Requests that wait for their turn", registry=self._registry).set_function(
            number
        )

    def count(self, answer: Answer) -> None:
        self._answers.labels("partial" if answer.partial else "whole").inc()
        for step, time_ms in answer.timings_ms.items():
            self._steps.labels(step).observe(time_ms / 1000)
        for tier, number in answer.counts.items():
            self._candidates.labels(tier).inc(number)

    def count_unavailable(self) -> None:
        self._answers.labels("unavailable").inc()

    def count_refused(self) -> None:
        self._refused.inc()

    def count_late(self) -> None:
        self._late.inc()

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _Gauges(Collector):
    """Computes its values when Prometheus asks for them."""

    def __init__(self, retriever: Answering, feed: HotFeed) -> None:
        self._retriever = retriever
        self._feed = feed

    def collect(self) -> Iterable[Metric]:
        yield _gauge("nearline_ready", "1 when whole answers are possible", not self._retriever.problems())
        yield _gauge("nearline_hot_posts", "Live posts in the hot tier", self._retriever.hot_count())
        yield CounterMetricFamily(
            "nearline_hot_skipped_records",
            "Records that the hot tier cannot take; the index stage makes dead letters of them",
            value=self._feed.skipped_records,
        )
        yield from _of_kept_answers(self._retriever.kept_counts())
        fresh = self._feed.freshness.summary()
        freshness = GaugeMetricFamily(
            "nearline_hot_freshness_seconds", "From an event's record to the hot tier", labels=["quantile"]
        )
        for quantile, value in (("0.5", fresh.p50), ("0.99", fresh.p99)):
            if value is not None:
                freshness.add_metric([quantile], value)
        yield freshness


def _of_kept_answers(kept: KeptCounts) -> Iterable[Metric]:
    yield _gauge("nearline_kept_answers", "Answers of the cold tier that are kept", kept.answers)
    yield _gauge("nearline_kept_answers_bytes", "Their size, without the ids", kept.num_bytes)
    questions = CounterMetricFamily(
        "nearline_cold_answers", "Questions that found their cold answer kept, and that had to ask", labels=["from"]
    )
    questions.add_metric(["kept"], kept.found)
    questions.add_metric(["asked"], kept.missed)
    yield questions


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, description, value=float(value))
