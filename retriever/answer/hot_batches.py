"""Searches the hot tier for all questions that wait, in one batch: the scan over all posts then happens once.

The searches run in a thread of their own, so that no question waits for a device that hangs longer than its deadline
allows. Whoever is alone does not wait for others: the thread takes what is there.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from threading import Condition, Lock, Thread
from typing import Final

import structlog

from indexer.errors import IndexerError, TierLate, TierUnavailable
from indexer.tiers import HotAnswer, HotQuery, HotTier
from retriever.workers import worker

MAX_BATCH: Final = 64
STUCK_S: Final = 0.5
"""A search hangs that has run for so long, and for several times what searches take lately. Further questions do not
wait for it."""
_STUCK_SEARCHES: Final = 3
"""So many times."""
_SEARCHES: Final = 3
"""So many typical searches a question waits for at most: one that runs, its own, and one more for safety."""
_WEIGHT: Final = 0.1
"""Of the newest search in the typical time."""

_log = structlog.get_logger(__name__)


class PendingHotSearch:
    """The queries of one question, which wait for their answers. Belongs to the thread that submitted it."""

    __slots__ = ("_clock", "_done", "abandoned", "answers", "failure", "queries")

    def __init__(self, queries: Sequence[HotQuery], clock: Callable[[], float]) -> None:
        self.queries = queries
        self.answers: list[HotAnswer] = []
        self.failure: IndexerError | None = None
        self.abandoned = False
        self._clock = clock
        self._done = Lock()
        self._done.acquire()  # a lock that is released once costs a tenth of an Event

    def finish(self, answers: list[HotAnswer], failure: IndexerError | None) -> None:
        self.answers, self.failure = answers, failure
        self._done.release()

    def wait(self, deadline_s: float) -> list[HotAnswer]:
        """In the order of the queries, all of one moment. Raises TierLate at the deadline, TierUnavailable if the
        search failed."""
        if not self._done.acquire(timeout=max(deadline_s - self._clock(), 0.0)):
            self.abandoned = True
            raise TierLate("the hot tier did not answer in time")
        if self.failure is not None:
            raise self.failure
        return self.answers


class HotBatches:
    """Any thread may call the methods."""

    def __init__(self, hot: HotTier, clock: Callable[[], float] = time.monotonic) -> None:
        self._hot = hot
        self._clock = clock
        self._changed = Condition(Lock())
        self._waiting: deque[PendingHotSearch] = deque()
        self._closed = False
        self._thread: Thread | None = None
        self._began_s: float | None = None
        """When the search that runs now began; None between two searches."""
        self.typical_s = 0.0
        """How long a search takes lately."""

    def submit(self, *queries: HotQuery) -> PendingHotSearch:
        """At most `MAX_BATCH`. Raises TierUnavailable if the hot tier hangs."""
        began_s = self._began_s
        if began_s is not None and self._clock() - began_s > max(STUCK_S, _STUCK_SEARCHES * self.typical_s):
            raise TierUnavailable("the hot tier hangs")
        pending = PendingHotSearch(queries, self._clock)
        with self._changed:
            if self._thread is None:
                thread = worker(self._run, "hot-search")
                thread.start()
                self._thread = thread  # only now: one that cannot be started is tried again
            self._waiting.append(pending)
            self._changed.notify()
        return pending

    def time_for(self, timeout_s: float) -> float:
        """How many seconds a question with this timeout should leave for its search."""
        return min(max(_SEARCHES * self.typical_s, timeout_s / 10), timeout_s / 2)

    def close(self) -> None:
        """Does not wait for a search that still runs: a device may hang."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._began_s = began_s = self._clock()
            self._answer(batch)
            self.typical_s += _WEIGHT * (self._clock() - began_s - self.typical_s)
            self._began_s = None

    def _next_batch(self) -> list[PendingHotSearch] | None:
        """Waits for a query, and takes all that wait. None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if self._closed:
                    return None
                batch, room = [], MAX_BATCH
                while self._waiting and len(self._waiting[0].queries) <= room:
                    pending = self._waiting.popleft()
                    if not pending.abandoned:
                        batch.append(pending)
                        room -= len(pending.queries)
                if batch:
                    return batch

    def _answer(self, batch: list[PendingHotSearch]) -> None:
        try:
            answers = iter(self._hot.search([query for pending in batch for query in pending.queries]))
            answers_of = [list(islice(answers, len(pending.queries))) for pending in batch]
        except Exception as error:
            failure = error if isinstance(error, IndexerError) else TierUnavailable(f"the hot tier failed: {error}")
            _log.warning("hot search failed", error=str(error), exc_info=not isinstance(error, IndexerError))
            for pending in batch:
                pending.finish([], failure)
            return
        for pending, of_pending in zip(batch, answers_of, strict=True):
            pending.finish(of_pending, None)
