"""The retriever's metrics for Prometheus. Each app has its own registry, so that two apps in one process do not mix.

Whatever belongs to a generation has its label. When a generation is closed, its series disappear.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer.freshness import added
from indexer.freshness_metric import add_freshness, freshness_family
from indexer.tiers import Offsets
from retriever.answer.figures import Figures
from retriever.answer.question import Answer
from retriever.feed.hot_feed import FeedFigures
from retriever.service.answering import Answering, HotFeeds
from schemas.ids import Generation

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GENERATION: Final = "generation"

Outcome = Literal["whole", "partial", "unavailable", "failed"]
"""Of a question that was not refused, and whose caller did not wait in vain. Failed: by a mistake of ours."""


class ServeMetrics:
    """Any thread may call the methods."""

    def __init__(self, retriever: Answering, feeds: HotFeeds) -> None:
        self._retriever = retriever
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(retriever, feeds))
        ProcessCollector(registry=self._registry)
        self._steps = Histogram(
            "nearline_retrieve_seconds",
            "Time of one step",
            ["step", _GENERATION],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._answers = Counter(
            "nearline_retrieve_answers",
            "Questions by what came of them: whole, partial, unavailable, failed",
            ["outcome", _GENERATION],
            registry=self._registry,
        )
        self._reasons = Counter(
            "nearline_answer_reasons",
            "Why answers are partial, or not from the member's own vector; an answer may have several reasons",
            ["reason", _GENERATION],
            registry=self._registry,
        )
        self._refused = Counter(
            "nearline_refused_requests",
            "Questions refused because they would have been answered too late; one of a batch that was refused unread",
            registry=self._registry,
        )
        self._late = Counter(
            "nearline_late_requests", "Questions that were begun and not answered in time", registry=self._registry
        )
        self._candidates = Counter(
            "nearline_candidates", "Candidates by where they came from", ["tier", _GENERATION], registry=self._registry
        )
        self._counted: set[str] = set()
        """The generations that have series."""

    def watch_queue(self, waiting: Callable[[], float], in_flight: Callable[[], float]) -> None:
        """Both are asked at each scrape."""
        gauges = (
            Gauge("nearline_waiting_requests", "Requests that wait for their turn", registry=self._registry),
            Gauge("nearline_requests_in_flight", "Requests that are being answered", registry=self._registry),
        )
        for gauge, number in zip(gauges, (waiting, in_flight), strict=True):
            gauge.set_function(number)

    def watch_certificate(self, end_s: float) -> None:
        Gauge(
            "nearline_certificate_end_timestamp_seconds",
            "Until when the certificate that it shows to clients is valid, with those of its authorities",
            registry=self._registry,
        ).set(end_s)

    def count(self, outcome: Outcome, generation: str | None, number: int = 1) -> None:
        """When the answer, or the error, is given to the caller. None: it is not known which generation was asked."""
        self._counted.add(generation or "")
        self._answers.labels(outcome, generation or "").inc(number)

    def measure(self, answer: Answer) -> None:
        """How the answer was made: also if it is late, because then these figures say why."""
        generation = answer.generation
        self._counted.add(generation)
        for reason in answer.reasons:
            self._reasons.labels(reason.code, generation).inc()
        for step, time_ms in answer.timings_ms.items():
            self._steps.labels(step, generation).observe(time_ms / 1000)
        for tier, number in answer.counts.items():
            self._candidates.labels(tier, generation).inc(number)

    def count_refused(self, number: int = 1) -> None:
        self._refused.inc(number)

    def count_late(self, number: int = 1) -> None:
        self._late.inc(number)

    def render(self) -> bytes:
        self._forget_closed()
        return generate_latest(self._registry)

    def _forget_closed(self) -> None:
        open_generations = {figures.generation for figures in self._retriever.figures()}
        for generation in self._counted.copy() - open_generations - {""}:
            # Discarded first: whoever counts meanwhile adds it again, and then its series are removed the next time.
            self._counted.discard(generation)
            for metric in (self._answers, self._reasons, self._steps, self._candidates):
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
        yield _gauge(
            "nearline_hot_tombstones",
            "Deleted posts in the hot tier, which hide older copies in the cold tier",
            figures,
            lambda of: of.hot_tombstones,
        )
        yield _trending_age(figures)
        yield from _of_tiers(figures)
        yield from _of_members(figures)
        yield from _of_kept_answers(figures)
        yield from _of_recall(figures)
        yield from self._of_feeds()

    def _of_feeds(self) -> Iterable[Metric]:
        skipped = CounterMetricFamily(
            "nearline_hot_skipped_records",
            "Records that the hot tier cannot take; the index stage makes dead letters of them",
            labels=[_GENERATION],
        )
        position = GaugeMetricFamily(
            "nearline_hot_feed_position", "The next offset that it reads", labels=["partition", _GENERATION]
        )
        freshness = freshness_family()
        feeds = self._feeds.figures()
        for feed in feeds:
            skipped.add_metric([feed.generation], feed.skipped_records)
            _add_offsets(position, feed.generation, feed.positions)
            by_kind = feed.by_kind if feed.members is None else added(feed.by_kind, feed.members.by_kind)
            add_freshness(freshness, "hot", feed.generation, by_kind)
        yield from (skipped, position, freshness)
        yield from _of_member_feeds(feeds)


def _trending_age(figures: Iterable[Figures]) -> Metric:
    age = GaugeMetricFamily(
        "nearline_trending_age_seconds",
        "How old the newest trending list is; lists are written while there is activity",
        labels=[_GENERATION],
    )
    for of in figures:
        if of.trending_at_us is not None:
            age.add_metric([of.generation], max(0.0, time.time() - of.trending_at_us / 1e6))
    return age


def _of_tiers(figures: Iterable[Figures]) -> Iterable[Metric]:
    """An answer is whole where no floor is above the position of its partition."""
    floor = GaugeMetricFamily(
        "nearline_hot_floor",
        "The offset from which on the hot tier holds everything",
        labels=["partition", _GENERATION],
    )
    position = GaugeMetricFamily(
        "nearline_cold_position",
        "The offset up to which the cold tier has written everything",
        labels=["partition", _GENERATION],
    )
    for of in figures:
        _add_offsets(floor, of.generation, of.hot_floor)
        _add_offsets(position, of.generation, of.cold_position)
    yield from (floor, position)


def _add_offsets(gauge: GaugeMetricFamily, generation: Generation, offsets: Offsets) -> None:
    for partition, offset in offsets.items():
        gauge.add_metric([str(partition), generation], offset)


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
        _add_offsets(position, feed.generation, members.positions)
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


def _of_recall(figures: Iterable[Figures]) -> Iterable[Metric]:
    """Sums: the recall of a time is the increase of the found ones by that of the expected ones."""
    answers = CounterMetricFamily(
        "nearline_recall_answers", "Answers that were given again, exactly, in the background", labels=[_GENERATION]
    )
    seconds = CounterMetricFamily(
        "nearline_recall_seconds", "Time spent on that; serve.recall_budget bounds it", labels=[_GENERATION]
    )
    expected = CounterMetricFamily(
        "nearline_recall_expected_candidates",
        "Candidates of exact answers, by the tier that holds them",
        labels=["tier", _GENERATION],
    )
    found = CounterMetricFamily(
        "nearline_recall_found_candidates",
        "Those of them that the answer had which members were given",
        labels=["tier", _GENERATION],
    )
    for of in figures:
        answers.add_metric([of.generation], of.recall.answers)
        seconds.add_metric([of.generation], of.recall.seconds)
        for tier, recall in of.recall.by_tier.items():
            expected.add_metric([tier, of.generation], recall.expected)
            found.add_metric([tier, of.generation], recall.found)
    yield from (answers, seconds, expected, found)


def _gauge(
    name: str, description: str, figures: Iterable[Figures], value: Callable[[Figures], float]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, description, labels=[_GENERATION])
    for of in figures:
        gauge.add_metric([of.generation], float(value(of)))
    return gauge
