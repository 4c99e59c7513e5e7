"""Faults in the processes of a running pipeline: kills, stops and freezes, chosen at random from a seed."""

import random
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import psutil

from nearline.errors import StartFailed
from nearline.pipeline import Pipeline

_Process = tuple[str, int]
"""The name and pid of a process."""

_LONGEST_FREEZE_S: Final = 20.0
"""Longer than the time-outs of a consumer's session and of a transaction: a process that then goes on is a zombie."""
_RESTART_S: Final = 300.0
_LOOK_EVERY_S: Final = 0.1


class Adversary:
    """Makes one fault after the other. The methods that choose at random return the fault's name with the stage that it
    hit."""

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

    def random_fault(self) -> str:
        (fault,) = self._random.choices(list(self._faults), list(self._faults.values()))
        return fault()

    def kill(self) -> str:
        return f"kill -9 {self.signal(signal.SIGKILL, self._victims(1))}"

    def kill_two(self) -> str:
        return f"kill -9 two: {self.signal(signal.SIGKILL, self._victims(2))}"

    def terminate(self) -> str:
        return f"SIGTERM {self.signal(signal.SIGTERM, self._victims(1))}"

    def terminate_all(self, stages: Collection[str]) -> None:
        """Returns when all their processes have started again, and so have read the crash file again."""
        victims = self.running(*stages)
        self.signal(signal.SIGTERM, victims)
        self._wait_until_replaced(victims)

    def freeze(self) -> str:
        """May freeze the broker too; then all other processes wait for it."""
        victims = self._victims(1)
        name = self.signal(signal.SIGSTOP, victims)
        time.sleep(self._random.uniform(1.0, _LONGEST_FREEZE_S))
        self.signal(signal.SIGCONT, victims)
        return f"SIGSTOP {name}"

    def kill_stage(self, stage: str) -> None:
        self.signal(signal.SIGKILL, self.running(stage)[:1])

    def freeze_for_good(self, stage: str) -> None:
        """Freezes a process of the stage. Returns when the supervisor has killed it and started another."""
        victims = self.running(stage)[:1]
        self.signal(signal.SIGSTOP, victims)
        self._wait_until_replaced(victims)

    def kill_up(self) -> str:
        """Kills `nearline up`, and starts it again when the kernel has ended all its children."""
        self._pipeline.kill()
        self._pipeline.start()
        return "kill -9 nearline up"

    def _victims(self, number: int) -> list[_Process]:
        running = self.running()
        return self._random.sample(running, min(number, len(running)))

    def running(self, *stages: str) -> list[_Process]:
        """The processes of these stages; of all stages where none is named."""
        processes = [(each.name, each.pid) for each in self._pipeline.instance.processes if each.pid is not None]
        return [process for process in processes if not stages or _stage(process[0]) in stages]

    def _wait_until_replaced(self, victims: list[_Process]) -> None:
        deadline = time.monotonic() + _RESTART_S
        while set(victims) & set(self.running()) or len(self.running()) < len(self._pipeline.instance.processes):
            if time.monotonic() > deadline:
                names = ", ".join(name for name, _ in victims)
                raise StartFailed(f"{names} did not start again within {_RESTART_S:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def signal(self, number: int, victims: list[_Process]) -> str:
        """Returns the names of their stages."""
        for _, pid in victims:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).send_signal(number)
        return ", ".join(_stage(name) for name, _ in victims)


def _stage(process: str) -> str:
    return process.partition("-")[0]
