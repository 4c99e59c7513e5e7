"""Asks the cold tier for the questions whose answer is not kept, and keeps what it says.

Two equal questions at the same time ask it once. All vectors of one question are asked in one batch. A question waits
until its deadline; an answer that comes later is kept for the next one. When nobody waits, answers are made ahead: of
questions that gave up before their turn came, and of members who asked lately and whose vector has changed.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from threading import Condition, Lock, Thread
from typing import Final, NamedTuple

import structlog

from indexer.errors import IndexerError, TierLate, TierUnavailable
from indexer.tiers import ColdQuery, ColdReader, Filters
from retriever.answer.cold.cold_answers import ColdAnswer, ColdAnswerMaker
from retriever.answer.cold.kept_answers import Asked, KeptAnswers, Version
from retriever.answer.hot_state import HotState
from retriever.answer.wholeness import covers, holds_everything
from retriever.workers import worker
from schemas.embeddings import Vector

NUM_THREADS: Final = 8
"""The embedded tier does not get quicker by more searches at the same time. A cluster of Qdrant servers does."""
GIVE_UP_S: Final = 2.0
"""A search goes on for so long although its question has given up: a tier that always takes 300 ms would otherwise
never answer a question of 200 ms."""
MAX_AHEAD: Final = 256
"""How many searches may wait to be made ahead. The oldest ones go."""

_log = structlog.get_logger(__name__)


class ColdSearch(NamedTuple):
    asked: Asked
    version: Version
    """Of the member."""
    vector_D: Vector
    filters: Filters
    """Those of the request and those of the member."""
    limit: int


_Place = tuple[Asked, Version, int]
"""What two searches have in common that give the same answer."""


class ColdJob:
    """One search, for all questions that wait for it."""

    def __init__(self, search: ColdSearch) -> None:
        self.search = search
        self.place: _Place = search.asked, search.version, search.limit
        self.future: Future[ColdAnswer] = Future()
        self.num_waiting = 0
        self.timeout_s = GIVE_UP_S
        self.is_queued = False
        self.has_started = False


class ColdSearches:
    """Any thread may call the methods. The threads are started when they are first needed."""

    def __init__(
        self,
        cold: ColdReader,
        kept: KeptAnswers,
        maker: ColdAnswerMaker,
        hot_state: HotState,
        *,
        refuses: Callable[[], bool] = lambda: False,
        num_threads: int = NUM_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An answer that would be outdated at once, by the hot tier's floor, is not kept. `refuses` says whether the
        cold tier is left alone now: then a search fails at once, although all threads may still wait for earlier
        ones."""
        self._cold = cold
        self._kept = kept
        self._maker = maker
        self._hot_state = hot_state
        self._refuses = refuses
        self._num_threads = num_threads
        self._clock = clock
        self._changed = Condition(Lock())
        # All of the following is read and changed under the lock.
        self._open: dict[_Place, ColdJob] = {}
        """Searches that wait or run."""
        self._queue: deque[list[ColdJob]] = deque()
        self._ahead: OrderedDict[Asked, Callable[[], ColdSearch]] = OrderedDict()
        self._num_running = 0
        self._threads: list[Thread] = []
        self._closed = False

    def ask_together(self, searches: Sequence[ColdSearch], timeout_s: float) -> list[ColdJob]:
        """Begins each search, or joins an equal one. Call `wait` afterwards, in any case. Those that begin now are one
        batch to the cold tier."""
        jobs = [ColdJob(search) for search in searches]
        if self._refuses():
            for job in jobs:
                job.num_waiting += 1
                job.future.set_exception(TierUnavailable("the cold tier is left alone for a moment, because it failed"))
            return jobs
        with self._changed:
            jobs = [self._open.setdefault(job.place, job) for job in jobs]
            batch = []
            for job in jobs:
                job.num_waiting += 1
                job.timeout_s = max(job.timeout_s, timeout_s)
                if not (job.has_started or job.is_queued):
                    job.is_queued = True
                    batch.append(job)
            if batch:
                self._queue.append(batch)
                self._wake_up()
        return jobs

    def wait(self, job: ColdJob, deadline_s: float) -> ColdAnswer:
        """Raises TierLate at the deadline, TierUnavailable if the tier fails.

        A search that had begun for questions with less time may end too early for this one: then it is begun once
        more."""
        try:
            return self._result(job, deadline_s)
        except TierLate:
            left_s = deadline_s - self._clock()
            if left_s <= 0:
                raise
        (again,) = self.ask_together([job.search], left_s)
        return self._result(again, deadline_s)

    def _result(self, job: ColdJob, deadline_s: float) -> ColdAnswer:
        try:
            return job.future.result(max(deadline_s - self._clock(), 0.0))
        except FutureTimeoutError as error:
            raise TierLate("the cold tier did not answer in time") from error
        finally:
            with self._changed:
                job.num_waiting -= 1

    def make_ahead(self, asked: Asked, search: Callable[[], ColdSearch]) -> None:
        """Searches when nobody waits for the cold tier. `search` is called only then. Returns at once."""
        with self._changed:
            self._add_ahead(asked, search)
            self._wake_up()

    def close(self) -> None:
        """Does not wait for searches that still run: a cold tier may hang."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wake_up(self) -> None:
        needed = self._num_running + max(len(self._queue), 1)
        if len(self._threads) < min(needed, self._num_threads):
            thread = worker(self._run, f"cold-search-{len(self._threads)}")
            thread.start()
            self._threads.append(thread)  # only now: one that cannot be started is tried again
        self._changed.notify()

    def _add_ahead(self, asked: Asked, search: Callable[[], ColdSearch]) -> None:
        self._ahead[asked] = search
        self._ahead.move_to_end(asked)
        if len(self._ahead) > MAX_AHEAD:
            self._ahead.popitem(last=False)

    def _run(self) -> None:
        while self._run_next():
            pass  # in a method of its own, so that no search lives on in this thread while it waits for another

    def _run_next(self) -> bool:
        """False at the end."""
        task = self._next()
        if task is None:
            return False
        try:
            task()
        except Exception:
            _log.exception("cold answer not made ahead")
        with self._changed:
            self._num_running -= 1
            self._changed.notify()  # something may be made ahead now
        return True

    def _next(self) -> Callable[[], None] | None:
        """Waits for something to do. None at the end."""
        with self._changed:
            while not self._closed:
                task = self._next_asked() or self._next_ahead()
                if task is not None:
                    self._num_running += 1
                    return task
                self._changed.wait()
            return None

    def _next_asked(self) -> Callable[[], None] | None:
        while self._queue:
            batch = self._queue.popleft()
            wanted = [job for job in batch if job.num_waiting]
            for job in batch:
                if not job.num_waiting:
                    # All its questions have given up. The next ones will be glad of the answer.
                    del self._open[job.place]
                    self._add_ahead(job.search.asked, partial(_identity, job.search))
            if wanted:
                for job in wanted:
                    job.has_started = True
                return partial(self._run_jobs, wanted)
        return None

    def _next_ahead(self) -> Callable[[], None] | None:
        if not self._ahead or self._num_running:
            return None
        return partial(self._run_ahead, self._ahead.popitem(last=False)[1])

    def _run_ahead(self, build: Callable[[], ColdSearch]) -> None:
        search, floor = build(), self._hot_state.floor()
        kept = self._kept.peek(search.asked, search.version, search.limit, floor)
        if kept is not None or not floor or holds_everything(floor):
            return
        job = ColdJob(search)
        with self._changed:
            if job.place in self._open:
                return
            job.has_started = True
            self._open[job.place] = job
        self._run_jobs([job])

    def _run_jobs(self, jobs: Sequence[ColdJob]) -> None:
        try:
            answers = self._ask_tier(jobs)
        except IndexerError as error:
            self._fail(jobs, error)
        except Exception as error:
            _log.exception("cold search failed")
            self._fail(jobs, TierUnavailable(f"the cold tier failed: {error}"))
        else:
            for job, answer in zip(jobs, answers, strict=True):
                # Kept before the job is closed, so that an equal question finds one of the two.
                if covers(self._hot_state.floor(), answer.position):
                    self._kept.keep(job.search.asked, job.search.version, answer)
                self._close_job(job)
                job.future.set_result(answer)

    def _fail(self, jobs: Sequence[ColdJob], error: IndexerError) -> None:
        for job in jobs:
            self._close_job(job)
            job.future.set_exception(error)

    def _ask_tier(self, jobs: Sequence[ColdJob]) -> list[ColdAnswer]:
        searches, timeout_s = [job.search for job in jobs], max(job.timeout_s for job in jobs)
        if len(searches) == 1:
            (search,) = searches
            hits = [self._cold.search(search.vector_D, search.limit, search.filters, timeout_s=timeout_s)]
        else:
            queries = [ColdQuery(search.vector_D, search.limit, search.filters) for search in searches]
            hits = self._cold.search_batch(queries, timeout_s=timeout_s)
        return [self._maker.make(each, search.limit) for each, search in zip(hits, searches, strict=True)]

    def _close_job(self, job: ColdJob) -> None:
        with self._changed:
            del self._open[job.place]


def _identity(search: ColdSearch) -> ColdSearch:
    return search
