"""Decides which questions are answered, and when: so many at the same time, a few more wait, and the rest is told at
once when to come again.

A question waits for as long as its deadline allows. It is refused when it would be late: by the recent times of
answers, and by how many wait before it. Refusing is quick, so that an overload hardly slows down who was let in.
"""

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, NamedTuple, TypeVar

from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy
from retriever.workers import worker
from schemas.api import ProblemCode

_NEWEST_WEIGHT: Final = 0.1
"""Of the newest answer in the recent time of an answer: so the last ten or twenty answers decide."""
_SPREADS: Final = 3.0
"""So many times the usual deviation is counted on, so that only few of those who are let in are late."""
_SHORTEST_RETRY_S: Final = 0.001

T = TypeVar("T")


class _Waiting(NamedTuple):
    place: asyncio.Future[None]
    """Set when the question may begin."""
    deadline: float


class QuestionQueue:
    """Belongs to one event loop: every method but the work itself runs there, so that nothing needs a lock."""

    def __init__(
        self,
        places: int,
        length: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places` questions are answered at the same time, each in a thread of its own, and `length` more may wait."""
        self._places = places
        self._free = places
        self._length = length
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._usual_s = 0.0
        """The recent time of an answer."""
        self._spread_s = 0.0
        """How far recent times were from it."""
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for number in range(places):
            worker(self._do_work, f"question-{number}").start()

    def close(self) -> None:
        """Does not wait for work that is still running."""
        for _ in range(self._places):
            self._work.put(None)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_in_flight(self) -> int:
        return self._places - self._free

    def check_room(self, within_s: float | None) -> None:
        """Raises RetrieverBusy if a question that comes now would be refused, whatever it asks. So it need not be read.
        None: its time is not known yet."""
        if not self._free and self._is_too_late(math.inf if within_s is None else self._clock() + within_s):
            raise self._busy()

    async def run(self, work: Callable[[float], T], within_s: float) -> T:
        """Calls `work` in a thread, with the seconds that are left then, and returns what it returns.

        Raises RetrieverBusy if the work would not end in time, DeadlineExceeded if it has begun and does not end in
        time, and what `work` raises. Work that is late goes on, and keeps its place until it ends."""
        deadline = self._clock() + within_s
        if within_s <= 0:
            raise DeadlineExceeded("the time for the answer is over already", code=ProblemCode.DEADLINE_EXCEEDED)
        await self._enter(deadline)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        # The context has the request's id, for the lines that the work logs.
        self._work.put(partial(contextvars.copy_context().run, self._answer, loop, answer, work, deadline))
        late = loop.call_later(deadline - self._clock(), _end_late, answer)
        try:
            return await answer
        finally:
            late.cancel()

    def _do_work(self) -> None:
        """Runs in each thread."""
        while work := self._work.get():
            work()
            del work  # it holds a request, and the next one may come late

    def _answer(
        self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[T]", work: Callable[[float], T], deadline: float
    ) -> None:
        """Runs in a thread. One call to the loop gives the answer and the place back."""
        began = self._clock()
        deliver: Callable[[], None]
        is_usual = True
        try:
            deliver = partial(answer.set_result, work(deadline - began))
        except Exception as error:
            deliver = partial(answer.set_exception, error)
            # It takes no time, and would make it seem that answers take none.
            is_usual = not isinstance(error, RequestRefused)
        except BaseException as panic:  # of a library made in Rust; else the place would be lost
            failure = RuntimeError(f"{type(panic).__name__}: {panic}")
            failure.__cause__ = panic
            deliver = partial(answer.set_exception, failure)
        took_s = self._clock() - began if is_usual else None
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(self._leave, took_s, answer, deliver)

    def _leave(self, took_s: float | None, answer: "asyncio.Future[T]", deliver: Callable[[], None]) -> None:
        if took_s is not None:
            self._spread_s += _NEWEST_WEIGHT * (abs(took_s - self._usual_s) - self._spread_s)
            self._usual_s += _NEWEST_WEIGHT * (took_s - self._usual_s)
        self._give_place_away()
        if not answer.done():  # else it was late, or the client is gone
            deliver()

    async def _enter(self, deadline: float) -> None:
        """Takes a place. Raises RetrieverBusy."""
        if self._free:
            self._free -= 1
            return
        if self._is_too_late(deadline):
            raise self._busy()
        waiting = _Waiting(asyncio.get_running_loop().create_future(), deadline)
        self._waiting.append(waiting)
        try:
            # No longer than until an answer would be late, so that whoever is refused hears of it in time.
            async with asyncio.timeout(deadline - self._likely_s() - self._clock()):
                await waiting.place
        except TimeoutError:
            self._forget(waiting)
            raise self._busy() from None
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    def _is_too_late(self, deadline: float) -> bool:
        """Whether one more that waits has no place in the queue, or no answer by then."""
        if len(self._waiting) >= self._length:
            return True
        return self._clock() + self._expected_wait_s() + self._likely_s() > deadline

    def _forget(self, waiting: _Waiting) -> None:
        """Of a client that waits no longer. It may have got a place at the same moment."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif waiting.place.done() and not waiting.place.cancelled() and waiting.place.exception() is None:
            self._give_place_away()

    def _give_place_away(self) -> None:
        """To the question that has waited longest and can still be answered in time."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.place.cancelled():
                continue
            if self._clock() + self._likely_s() <= waiting.deadline:
                waiting.place.set_result(None)
                return
            waiting.place.set_exception(self._busy())
        self._free += 1

    def _likely_s(self) -> float:
        """Most answers take no longer."""
        return self._usual_s + _SPREADS * self._spread_s

    def _expected_wait_s(self) -> float:
        """How long the next question would wait. With n places, one becomes free in every n-th part of an answer's
        time."""
        return (len(self._waiting) + 1) * self._usual_s / self._places

    def _busy(self) -> RetrieverBusy:
        return RetrieverBusy(
            "more questions came than can be answered in time; try again",
            code=ProblemCode.BUSY,
            retry_after_s=max(self._expected_wait_s(), _SHORTEST_RETRY_S),
        )


def _end_late(answer: "asyncio.Future[T]") -> None:
    if not answer.done():
        late = DeadlineExceeded("there is no answer within timeout_ms", code=ProblemCode.DEADLINE_EXCEEDED)
        answer.set_exception(late)
