"""What the adversary does to a running pipeline: to its processes, at random moments, from a seed."""

import random
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import psutil

from nearline.demo.pipeline import Pipeline
from nearline.errors import StartFailed

_Process = tuple[str, int]
"""Name and pid."""

_LONGEST_FREEZE_S: Final = 20.0
"""Longer than a consumer's session and a transaction may last: whoever wakes is a zombie."""
_RESTART_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.1


class Adversary:
    """One fault after the other. Each method returns the fault's name, with the stage that it met."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self._pipeline = pipeline
        self._random = random.Random(seed)
        self._faults: dict[Callable[[], str], int] = {
            self.kill: 10,
            self.terminate: 4,
            self.kill_two: 4,
            self.freeze: 3,
            self.kill_up: 1,
        }

    def strike(self) -> str:
        (fault,) = self._random.choices(list(self._faults), list(self._faults.values()))
        return fault()

    def kill(self) -> str:
        return f"kill -9 {self._signal(signal.SIGKILL, self._victims(1))}"

    def kill_two(self) -> str:
        return f"kill -9 two: {self._signal(signal.SIGKILL, self._victims(2))}"

    def terminate(self) -> str:
        return f"SIGTERM {self._signal(signal.SIGTERM, self._victims(1))}"

    def terminate_all(self, stages: Collection[str]) -> None:
        """Returns when all of them have started again, with whatever is armed by now."""
        victims = [one for one in self._running() if _stage(one[0]) in stages]
        self._signal(signal.SIGTERM, victims)
        deadline = time.monotonic() + _RESTART_S
        while set(victims) & set(self._running()) or len(self._running()) < len(self._pipeline.instance.processes):
            if time.monotonic() > deadline:
                raise StartFailed(f"{', '.join(stages)} did not start again within {_RESTART_S:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def freeze(self) -> str:
        """The broker too: all others wait for it then."""
        victims = self._victims(1)
        name = self._signal(signal.SIGSTOP, victims)
        time.sleep(self._random.uniform(1.0, _LONGEST_FREEZE_S))
        self._signal(signal.SIGCONT, victims)
        return f"SIGSTOP {name}"

    def kill_up(self) -> str:
        """With all its children, which the kernel ends; then it is started again."""
        self._pipeline.kill()
        self._pipeline.start()
        return "kill -9 nearline up"

    def _victims(self, number: int) -> list[_Process]:
        running = self._running()
        return self._random.sample(running, min(number, len(running)))

    def _running(self) -> list[_Process]:
        return [(one.name, one.pid) for one in self._pipeline.instance.processes if one.pid is not None]

    def _signal(self, number: int, victims: list[_Process]) -> str:
        for _, pid in victims:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).send_signal(number)
        return ", ".join(_stage(name) for name, _ in victims)


def _stage(process: str) -> str:
    return process.partition("-")[0]
