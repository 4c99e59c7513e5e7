"""Who is answered, who waits, and who is told to come again. Questions run in real threads; the clock is set by hand
where the usual time of an answer matters."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from threading import Event, Lock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy, RetrieverUnavailable
from retriever.service.question_queue import QuestionQueue

LONG_S = 30.0


class Work:
    """Questions that go on until they are told to end."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._gates: dict[int, Event] = {}
        self.running: set[int] = set()
        self.begun: list[int] = []
        self.most = 0

    def of(self, number: int) -> Callable[[float], int]:
        gate = self._gates[number] = Event()

        def work(_: float) -> int:
            with self._lock:
                self.running.add(number)
                self.begun.append(number)
                self.most = max(self.most, len(self.running))
            assert gate.wait(LONG_S)
            with self._lock:
                self.running.remove(number)
            return number

        return work

    def end(self, number: int) -> None:
        self._gates[number].set()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LONG_S):
            await scenario()

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_so_many_at_once_and_the_others_in_their_order() -> None:
    async def scenario() -> None:
        work = Work()
        with closing(QuestionQueue(2, 3)) as queue:
            asked = [asyncio.create_task(queue.run(work.of(number), LONG_S)) for number in range(5)]
            await until(lambda: len(work.running) == 2 and queue.num_waiting == 3)
            for number in range(5):
                work.end(number)
                assert await asked[number] == number
            assert (work.most, work.begun[2:]) == (2, [2, 3, 4])

    run(scenario)


def test_one_more_than_may_wait_is_told_at_once() -> None:
    async def scenario() -> None:
        work, refused = Work(), []
        with closing(QuestionQueue(1, 1, count_refused=lambda: refused.append(1))) as queue:
            asked = [asyncio.create_task(queue.run(work.of(number), LONG_S)) for number in range(2)]
            await until(lambda: queue.num_waiting == 1)
            with pytest.raises(RetrieverBusy, match="try again"):
                await queue.run(work.of(2), LONG_S)
            assert refused == [1]
            for number in range(2):
                work.end(number)
                await asked[number]
            assert 2 not in work.begun

    run(scenario)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def _learn(queue: QuestionQueue, clock: Clock, took_s: float) -> None:
    """So many answers of this time that the queue takes it for the usual one."""

    def work(_: float) -> None:
        clock.now_s += took_s

    for _ in range(100):
        await queue.run(work, 1e9)


def test_one_who_would_be_late_is_told_when_to_come_again() -> None:
    """Two places and 100 ms an answer: one place becomes free each 50 ms."""

    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(2, 10, clock=clock)) as queue:
            await _learn(queue, clock, 0.1)
            asked = [asyncio.create_task(queue.run(work.of(number), 1e6)) for number in range(4)]
            await until(lambda: len(work.running) == 2 and queue.num_waiting == 2)
            # The next one waits for 150 ms and takes 100.
            with pytest.raises(RetrieverBusy) as busy:
                await queue.run(work.of(4), 0.249)
            assert busy.value.retry_after_s == pytest.approx(0.15, rel=0.01)
            asked.append(asyncio.create_task(queue.run(work.of(5), 0.251)))
            await until(lambda: queue.num_waiting == 3)
            for number in (0, 1, 2, 3, 5):
                work.end(number)
            assert [await answer for answer in asked] == [0, 1, 2, 3, 5]

    run(scenario)


def test_whether_there_is_room_is_known_before_the_question() -> None:
    async def scenario() -> None:
        work, clock, refused = Work(), Clock(), []
        with closing(QuestionQueue(1, 2, clock=clock, count_refused=lambda: refused.append(1))) as queue:
            await _learn(queue, clock, 0.1)
            queue.check_room(0.001)  # a free place is given however late the answer will be
            asked = [asyncio.create_task(queue.run(work.of(number), 1e6)) for number in range(2)]
            await until(lambda: len(work.running) == 1 and queue.num_waiting == 1)
            for within_s in (None, 0.301):
                queue.check_room(within_s)
            # The next one waits for 200 ms and takes 100.
            with pytest.raises(RetrieverBusy) as busy:
                queue.check_room(0.299)
            assert busy.value.retry_after_s == pytest.approx(0.2, rel=0.01)
            asked.append(asyncio.create_task(queue.run(work.of(2), 1e6)))
            await until(lambda: queue.num_waiting == 2)
            with pytest.raises(RetrieverBusy):
                queue.check_room(None)
            assert len(refused) == 2
            for number in range(3):
                work.end(number)
                assert await asked[number] == number

    run(scenario)


def test_refused_questions_do_not_make_answers_seem_quick() -> None:
    def refuse(_: float) -> None:
        raise RequestRefused("text: there is nothing to encode")

    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(1, 1, clock=clock)) as queue:
            await _learn(queue, clock, 0.1)
            for _ in range(100):
                with pytest.raises(RequestRefused):
                    await queue.run(refuse, 1e9)
            first = asyncio.create_task(queue.run(work.of(0), 1e6))
            await until(lambda: len(work.running) == 1)
            with pytest.raises(RetrieverBusy):
                await queue.run(work.of(1), 0.15)
            work.end(0)
            await first

    run(scenario)


def test_a_free_place_is_given_however_late_the_answer_will_be() -> None:
    async def scenario() -> None:
        clock = Clock()
        with closing(QuestionQueue(1, 1, clock=clock)) as queue:
            await _learn(queue, clock, 5.0)
            assert await queue.run(lambda left_s: left_s, 0.5) == pytest.approx(0.5)

    run(scenario)


def test_one_whose_turn_comes_too_late_gives_it_to_the_next() -> None:
    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(1, 2, clock=clock)) as queue:
            await _learn(queue, clock, 0.1)
            first = asyncio.create_task(queue.run(work.of(0), 1e6))
            await until(lambda: len(work.running) == 1)
            late = asyncio.create_task(queue.run(work.of(1), 0.3))
            patient = asyncio.create_task(queue.run(work.of(2), 1e6))
            await until(lambda: queue.num_waiting == 2)
            clock.now_s += 0.25  # the first one takes longer than usual
            work.end(0)
            work.end(2)
            assert [await first, await patient] == [0, 2]
            with pytest.raises(RetrieverBusy):
                await late
            assert work.begun == [0, 2]

    run(scenario)


def test_one_who_waits_in_vain_is_told_in_time() -> None:
    async def scenario() -> None:
        work = Work()
        with closing(QuestionQueue(1, 1)) as queue:
            stuck = asyncio.create_task(queue.run(work.of(0), LONG_S))
            await until(lambda: len(work.running) == 1)
            began = time.monotonic()
            with pytest.raises(RetrieverBusy):
                await queue.run(work.of(1), 0.1)
            assert 0.09 < time.monotonic() - began < LONG_S / 2
            work.end(0)
            await stuck

    run(scenario)


def test_work_that_is_late_keeps_its_place_and_its_caller_goes() -> None:
    async def scenario() -> None:
        work = Work()
        with closing(QuestionQueue(1, 1)) as queue:
            with pytest.raises(DeadlineExceeded, match="timeout_ms"):
                await queue.run(work.of(0), 0.05)
            with pytest.raises(RetrieverBusy):
                await queue.run(work.of(1), 0.05)
            work.end(0)
            third = work.of(2)
            work.end(2)
            assert await queue.run(third, LONG_S) == 2

    run(scenario)


class Panic(BaseException):
    """As libraries made in Rust raise it."""


def test_a_panic_is_an_error_and_gives_the_place_back() -> None:
    def panic(_: float) -> None:
        raise Panic("index out of bounds")

    async def scenario() -> None:
        with closing(QuestionQueue(1, 0)) as queue:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
                    await queue.run(panic, LONG_S)

    run(scenario)


def test_an_error_is_the_callers_and_gives_the_place_back() -> None:
    def fail(_: float) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        with closing(QuestionQueue(1, 0)) as queue:
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    await queue.run(fail, LONG_S)
                await asyncio.sleep(0.01)

    run(scenario)


def test_no_time_is_no_answer() -> None:
    async def scenario() -> None:
        with closing(QuestionQueue(1, 1)) as queue:
            for within_s in (0.0, -1.0):
                with pytest.raises(DeadlineExceeded):
                    await queue.run(lambda left_s: left_s, within_s)

    run(scenario)


def test_work_that_fails_when_its_client_is_gone_is_no_unseen_error() -> None:
    """asyncio would log it with a traceback, one for each client that gave up."""
    unseen: list[dict[str, object]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        gate, ended = Event(), Event()

        def work(_: float) -> int:
            try:
                assert gate.wait(LONG_S)
                raise RetrieverUnavailable("no tier answers")
            finally:
                ended.set()

        with closing(QuestionQueue(1, 1)) as queue:
            task = asyncio.create_task(queue.run(work, LONG_S))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.set()
            await until(ended.is_set)
            # It waits until the place is free, and by then the loop has seen the end of the work.
            assert await queue.run(lambda _: 1, LONG_S) == 1
        del task
        gc.collect()

    run(scenario)
    assert unseen == []


@given(
    places=st.integers(1, 3),
    length=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "end", "go"]), st.integers(0, 9)), max_size=30),
)
@settings(max_examples=40, deadline=None)
def test_no_place_is_lost_or_given_twice(places: int, length: int, steps: list[tuple[str, int]]) -> None:
    """Clients come, go and are answered in any order."""

    async def scenario() -> None:
        work, asked = Work(), dict[int, asyncio.Task[int]]()
        with closing(QuestionQueue(places, length)) as queue:
            for number, (step, which) in enumerate(steps):
                open_ones = [number for number, task in asked.items() if not task.done()]
                if step == "ask":
                    asked[number] = asyncio.create_task(queue.run(work.of(number), LONG_S))
                elif open_ones:
                    other = open_ones[which % len(open_ones)]
                    if step == "end":
                        work.end(other)
                    else:
                        asked[other].cancel()
                await asyncio.sleep(0.002 * (which % 2))
            for number in asked:
                work.end(number)
            outcomes = await asyncio.gather(*asked.values(), return_exceptions=True)
            assert all(isinstance(outcome, int | RetrieverBusy | asyncio.CancelledError) for outcome in outcomes)
            # A place is back a moment after its work has ended.
            await until(lambda: queue._free == places)
            assert not work.running
            assert queue.num_waiting == 0
            assert work.most <= places
            last = [asyncio.create_task(queue.run(work.of(1000 + number), LONG_S)) for number in range(places)]
            await until(lambda: len(work.running) == places)
            for number in range(places):
                work.end(1000 + number)
            await asyncio.gather(*last)

    run(scenario)
