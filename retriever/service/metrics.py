"""The retriever's metrics for Prometheus. Each app has its own registry, so that two apps in one process do not mix.

Whatever belongs to a generation has its label. When a generation is closed, its series disappear.
"""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from retriever.answer.figures import Figures
from retriever.answer.question import Answer
from retriever.feed.hot_feed import FeedFigures
from retriever.service.answering import Answering, HotFeeds

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GENERATION: Final = "generation"


class ServeMetrics:
    """Any thread may call the methods."""

    def __init__(self, retriever: Answering, feeds: HotFeeds) -> None:
        self._retriever = retriever
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(retriever, feeds))
        self._steps = Histogram(
            "nearline_retrieve_seconds",
            "Time of one step",
            ["step", _GENERATION],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._answers = Counter(
            "nearline_retrieve_answers",
            "Answers: whole, partial, unavailable",
            ["outcome", _GENERATION],
            registry=self._registry,
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
            "nearline_candidates", "Candidates by where they came from", ["tier", _GENERATION], registry=self._registry
        )
        self._counted: set[str] = set()
        """The generations that have series."""

    def watch_waiting(self, number: Callable[[], float]) -> None:
        Gauge("nearline_waiting_requests", "Requests that wait for their turn", registry=self._registry).set_function(
            number
        )

    def count(self, answer: Answer) -> None:
        generation = answer.generation
        self._counted.add(generation)
        self._answers.labels("partial" if answer.partial else "whole", generation).inc()
        for step, time_ms in answer.timings_ms.items():
            self._steps.labels(step, generation).observe(time_ms / 1000)
        for tier, number in answer.counts.items():
            self._candidates.labels(tier, generation).inc(number)

    def count_unavailable(self, generation: str | None) -> None:
        """None: no generation was asked."""
        self._counted.add(generation or "")
        self._answers.labels("unavailable", generation or "").inc()

    def count_refused(self) -> None:
        self._refused.inc()

    def count_late(self) -> None:
        self._late.inc()

    def render(self) -> bytes:
        self._forget_closed()
        return generate_latest(self._registry)

    def _forget_closed(self) -> None:
        open_generations = {figures.generation for figures in self._retriever.figures()}
        for generation in self._counted.copy() - open_generations - {""}:
            # Discarded first: whoever counts meanwhile adds it again, and then its series are removed the next time.
            self._counted.discard(generation)
            for metric in (self._answers, self._steps, self._candidates):
                metric.remove_by_labels({_GENERATION: generation})


class _Gauges(Collector):
    """Computes its values when Prometheus asks for them."""

    def __init__(self, retriever: Answering, feeds: HotFeeds) -> None:
        self._retriever = retriever
        self._feeds = feeds

    def collect(self) -> Iterable[Metric]:
        figures = self._retriever.figures()
        yield _gauge("nearline_ready", "1 when whole answers are possible", figures, lambda of: of.ready)
        yield _gauge("nearline_hot_posts", "Live posts in the hot tier", figures, lambda of: of.hot_posts)
        yield from _of_members(figures)
        yield from _of_kept_answers(figures)
        yield from self._of_feeds()

    def _of_feeds(self) -> Iterable[Metric]:
        skipped = CounterMetricFamily(
            "nearline_hot_skipped_records",
            "Records that the hot tier cannot take; the index stage makes dead letters of them",
            labels=[_GENERATION],
        )
        freshness = GaugeMetricFamily(
            "nearline_hot_freshness_seconds",
            "From an event's record to the hot tier",
            labels=["quantile", _GENERATION],
        )
        feeds = self._feeds.figures()
        for feed in feeds:
            skipped.add_metric([feed.generation], feed.skipped_records)
            for quantile, value in (("0.5", feed.freshness.p50), ("0.99", feed.freshness.p99)):
                if value is not None:
                    freshness.add_metric([quantile, feed.generation], value)
        yield skipped
        yield freshness
        yield from _of_member_feeds(feeds)


def _of_members(figures: Iterable[Figures]) -> Iterable[Metric]:
    yield _gauge("nearline_held_members", "Members in memory, deleted ones too", figures, lambda of: of.members.held)
    yield _gauge("nearline_held_members_bytes", "Vectors and lists", figures, lambda of: of.members.num_bytes)
    evicted = CounterMetricFamily(
        "nearline_evicted_members", "Members dropped from memory to make room for others", labels=[_GENERATION]
    )
    lookups = CounterMetricFamily(
        "nearline_member_lookups",
        "Members who asked and were in memory, and those for whom the cold tier was asked",
        labels=["from", _GENERATION],
    )
    for of in figures:
        evicted.add_metric([of.generation], of.members.evicted)
        lookups.add_metric(["memory", of.generation], of.members.found)
        lookups.add_metric(["cold", of.generation], of.members.missed)
    yield evicted
    yield lookups


def _of_member_feeds(feeds: Iterable[FeedFigures]) -> Iterable[Metric]:
    behind = GaugeMetricFamily(
        "nearline_member_feed_behind_records",
        "Records that the member feed has not read yet; nothing if the broker has not said it lately",
        labels=[_GENERATION],
    )
    position = GaugeMetricFamily(
        "nearline_member_feed_position", "The next offset that it reads", labels=["partition", _GENERATION]
    )
    skipped = CounterMetricFamily(
        "nearline_member_skipped_records",
        "Records that it cannot take; the index stage makes dead letters of them",
        labels=[_GENERATION],
    )
    for feed in feeds:
        if (members := feed.members) is None:
            continue
        skipped.add_metric([feed.generation], members.skipped_records)
        if members.records_left is not None:
            behind.add_metric([feed.generation], members.records_left)
        for partition, offset in members.positions.items():
            position.add_metric([str(partition), feed.generation], offset)
    yield from (behind, position, skipped)


def _of_kept_answers(figures: Iterable[Figures]) -> Iterable[Metric]:
    yield _gauge("nearline_kept_answers", "Answers of the cold tier that are kept", figures, lambda of: of.kept.answers)
    yield _gauge("nearline_kept_answers_bytes", "Their size, without the ids", figures, lambda of: of.kept.num_bytes)
    questions = CounterMetricFamily(
        "nearline_cold_answers",
        "Questions that found their cold answer kept, and that had to ask",
        labels=["from", _GENERATION],
    )
    for of in figures:
        questions.add_metric(["kept", of.generation], of.kept.found)
        questions.add_metric(["asked", of.generation], of.kept.missed)
    yield questions


def _gauge(
    name: str, description: str, figures: Iterable[Figures], value: Callable[[Figures], float]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, description, labels=[_GENERATION])
    for of in figures:
        gauge.add_metric([of.generation], float(value(of)))
    return gauge
