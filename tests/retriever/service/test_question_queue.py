"""Who is answered, who waits, and who is told to come again. Questions run in real threads."""

import asyncio
import gc
from contextlib import closing
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.errors import DeadlineExceeded, RetrieverBusy, RetrieverUnavailable
from retriever.service.question_queue import QuestionQueue
from tests.kit.queue_work import LONG_S, Work, run, until


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
        work = Work()
        with closing(QuestionQueue(1, 1)) as queue:
            asked = [asyncio.create_task(queue.run(work.of(number), LONG_S)) for number in range(2)]
            await until(lambda: queue.num_waiting == 1)
            with pytest.raises(RetrieverBusy, match="try again"):
                await queue.run(work.of(2), LONG_S)
            for number in range(2):
                work.end(number)
                await asked[number]
            assert 2 not in work.begun

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
