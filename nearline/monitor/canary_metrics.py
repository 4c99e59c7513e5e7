"""What the canaries say, for Prometheus. The series of a generation that is not looked at any more disappear."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nearline.monitor.canaries import Outcome, Step
from schemas.ids import Generation

_GENERATION: Final = "generation"
_BUCKETS_S: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
"""They are looked for four times a second, until a minute has passed."""


class CanaryMetrics(Collector):
    """Implements `Observer`. One thread tells what it saw, any other asks."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._succeeded_at_s: dict[Generation, float] = {}
        """When the newest that passed had passed, or when it was first looked for one."""
        self._searchable = Histogram(
            "nearline_canary_searchable_seconds",
            "From sending a canary's post to finding it",
            [_GENERATION],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._gone = Histogram(
            "nearline_canary_gone_seconds",
            "From deleting a canary's post to not finding it any more",
            [_GENERATION],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._canaries = Counter(
            "nearline_canaries",
            "Canaries by outcome: passed, lost (never found), stayed (never gone), late, unknown",
            ["outcome", _GENERATION],
            registry=registry,
        )
        registry.register(self)

    def saw(self, generation: Generation, step: Step, seconds: float) -> None:
        (self._searchable if step == "searchable" else self._gone).labels(generation).observe(seconds)

    def ended(self, generation: Generation, outcome: Outcome) -> None:
        self._canaries.labels(outcome, generation).inc()
        if outcome == "passed":
            self._succeeded_at_s = {**self._succeeded_at_s, generation: self._clock()}

    def asked(self, generations: Sequence[Generation]) -> None:
        for generation in self._succeeded_at_s.keys() - set(generations):
            for metric in (self._searchable, self._gone, self._canaries):
                metric.remove_by_labels({_GENERATION: generation})
        now_s = self._clock()
        self._succeeded_at_s = {each: self._succeeded_at_s.get(each, now_s) for each in generations}

    def collect(self) -> Iterable[Metric]:
        ages = GaugeMetricFamily(
            "nearline_canary_newest_success_age_seconds",
            "How long ago the newest canary had passed; if none has, since when they are looked for",
            labels=[_GENERATION],
        )
        for generation, at_s in self._succeeded_at_s.items():
            ages.add_metric([generation], self._clock() - at_s)
        yield ages
