"""Measures the recall of live answers in the background, within a budget: the share of the time that this may take.

One answer is measured at a time, in a thread that steps back behind those that answer. After each it rests for so long
that the budget is kept, and takes the next answer that is given then. So nothing waits for it, and none queue up.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread
from typing import NamedTuple

import structlog

from indexer.errors import IndexerError
from retriever.answer.exact_search import Recalls, TierRecall
from retriever.answer.question import Tier
from retriever.workers import worker
from schemas.ids import Generation

_log = structlog.get_logger(__name__)

OnMissed = Callable[[Generation, float], None]
"""Is told the share of the exact answer's posts that an answer missed. Does not block."""


class RecallFigures(NamedTuple):
    """Since the generation was opened."""

    answers: int
    seconds: float
    """Spent on measuring."""
    by_tier: Mapping[Tier, TierRecall]


@dataclass
class RecallCounts:
    """Of one generation. The thread that measures changes it; any thread may ask for its figures."""

    answers: int = 0
    seconds: float = 0.0
    by_tier: Mapping[Tier, TierRecall] = field(default_factory=dict)

    def add(self, recalls: Recalls) -> None:
        self.answers += 1
        self.by_tier = {**self.by_tier, **{tier: self._sum(tier, recall) for tier, recall in recalls.items()}}

    def figures(self) -> RecallFigures:
        return RecallFigures(self.answers, self.seconds, self.by_tier)

    def _sum(self, tier: Tier, recall: TierRecall) -> TierRecall:
        before = self.by_tier.get(tier, TierRecall(0, 0))
        return TierRecall(before.found + recall.found, before.expected + recall.expected)


class _Job(NamedTuple):
    generation: Generation
    counts: RecallCounts
    measure: Callable[[], Recalls | None]


class OnlineRecall:
    """For all generations of a process. Any thread may call the methods; none of them blocks."""

    def __init__(
        self,
        budget: float,
        clock: Callable[[], float] = time.monotonic,
        longer: Callable[[], float] = lambda: random.uniform(1, 2),
    ) -> None:
        """`budget`: seconds of measuring in each second, below 1; 0 measures nothing. `longer`: by how much a rest is
        longer than it must be. By chance, so that no question that comes at regular times is always the one."""
        self._budget, self._clock, self._longer = budget, clock, longer
        self._changed = Condition(Lock())
        self._job: _Job | None = None
        self._thread: Thread | None = None
        self._closed = False
        self._next_s = clock()
        self._on_missed: OnMissed = _ignore

    def watch(self, on_missed: OnMissed) -> None:
        """From now on `on_missed` is told of each answer that was measured. The thread that measures calls it."""
        self._on_missed = on_missed

    def wants(self) -> bool:
        """Whether an answer that is offered now would be measured. Costs nothing."""
        return self._budget > 0 and self._job is None and self._clock() >= self._next_s

    def offer(self, generation: Generation, counts: RecallCounts, measure: Callable[[], Recalls | None]) -> None:
        """`measure` may raise IndexerError, and gives None if nothing can be said."""
        with self._changed:
            if self._closed or not self.wants():
                return
            self._job = _Job(generation, counts, measure)
            if self._thread is None:
                self._thread = worker(self._run, "online-recall")
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Does not wait for what is being measured."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            self._measure(job)
            del job  # it holds an answer

    def _next_job(self) -> _Job | None:
        """None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._job is not None)
            return None if self._closed else self._job

    def _measure(self, job: _Job) -> None:
        began_s = self._clock()
        recalls = None
        try:
            recalls = job.measure()
        except IndexerError as error:
            _log.debug("the recall of an answer was not measured", error=str(error))
        except Exception:
            _log.exception("the recall of an answer was not measured")
        took_s = self._clock() - began_s
        job.counts.seconds += took_s
        if recalls:
            job.counts.add(recalls)
            self._on_missed(job.generation, _missed_share(recalls))
        self._next_s = self._clock() + took_s * (1 / self._budget - 1) * self._longer()
        self._job = None


def _missed_share(recalls: Recalls) -> float:
    expected = sum(recall.expected for recall in recalls.values())
    return 1 - sum(recall.found for recall in recalls.values()) / expected


def _ignore(generation: Generation, missed_share: float) -> None:
    """Until somebody watches."""
