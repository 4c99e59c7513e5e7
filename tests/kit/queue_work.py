"""Questions that end when a test says so, and a clock, for tests of the queue before the retriever."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event, Lock
from typing import Final

from retriever.service.question_queue import QuestionQueue

LONG_S: Final = 30.0


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


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def learn(queue: QuestionQueue, clock: Clock, took_s: float, times: int = 200) -> None:
    """So many answers of this time that the queue takes it for the usual one."""

    def work(_: float) -> None:
        clock.now_s += took_s

    for _ in range(times):
        await queue.run(work, 1e9)
