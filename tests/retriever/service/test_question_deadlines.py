"""Who is told that an answer would be late, and when. The clock is set by hand where the usual time of an answer
matters."""

import asyncio
import time
from contextlib import closing

import pytest

from retriever.errors import RequestRefused, RetrieverBusy
from retriever.service.question_queue import QuestionQueue
from tests.kit.queue_work import LONG_S, Clock, Work, learn, run, until


def test_one_who_would_be_late_is_told_when_to_come_again() -> None:
    """Two places and 100 ms an answer: one place becomes free each 50 ms."""

    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(2, 10, clock=clock)) as queue:
            await learn(queue, clock, 0.1)
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


def test_it_counts_on_answers_that_take_longer_than_usual() -> None:
    """They take 50 or 150 ms by turns, so three times 50 ms are added to the usual 100."""

    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(1, 1, clock=clock)) as queue:
            for _ in range(100):
                await learn(queue, clock, 0.05, times=1)
                await learn(queue, clock, 0.15, times=1)
            first = asyncio.create_task(queue.run(work.of(0), 1e6))
            await until(lambda: len(work.running) == 1)
            queue.check_room(0.40)
            with pytest.raises(RetrieverBusy):
                queue.check_room(0.30)
            work.end(0)
            await first

    run(scenario)


def test_whether_there_is_room_is_known_before_the_question() -> None:
    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(1, 2, clock=clock)) as queue:
            await learn(queue, clock, 0.1)
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
            await learn(queue, clock, 1000.0)
            for _ in range(100):
                with pytest.raises(RequestRefused):
                    await queue.run(refuse, 1e9)
            first = asyncio.create_task(queue.run(work.of(0), 1e6))
            await until(lambda: len(work.running) == 1)
            with pytest.raises(RetrieverBusy):  # at once: in real time this wait would not end
                await queue.run(work.of(1), 1500.0)
            work.end(0)
            await first

    run(scenario)


def test_a_free_place_is_given_however_late_the_answer_will_be() -> None:
    async def scenario() -> None:
        clock = Clock()
        with closing(QuestionQueue(1, 1, clock=clock)) as queue:
            await learn(queue, clock, 5.0)
            assert await queue.run(lambda left_s: left_s, 0.5) == pytest.approx(0.5)

    run(scenario)


def test_one_whose_turn_comes_too_late_gives_it_to_the_next() -> None:
    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(1, 2, clock=clock)) as queue:
            await learn(queue, clock, 0.1)
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


def test_one_who_waits_in_vain_is_told_before_the_deadline() -> None:
    """An answer takes 100 s, so it would be late one second after the question has come."""

    async def scenario() -> None:
        work, clock = Work(), Clock()
        with closing(QuestionQueue(100, 1, clock=clock)) as queue:
            await learn(queue, clock, 100.0)
            stuck = [asyncio.create_task(queue.run(work.of(number), 1e6)) for number in range(100)]
            await until(lambda: len(work.running) == 100)
            with pytest.raises(RetrieverBusy):
                await queue.run(work.of(100), 101.1)  # one of the places is expected to be free in a second
            for number in range(100):
                work.end(number)
            await asyncio.gather(*stuck)

    run(scenario)
