"""Keeps processes running: starts them, starts again whatever ends, and ends them in order.

Knows nothing of what they do. Everything here is called from the main thread: a child lives as long as the thread that
started it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from nearline import children
from nearline.settings.instance import ProcessInfo
from nearline.up.failures import Failure

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 5.0
"""A stage leaves its process on an outage; so this is how long it may take to come back after one."""
STEADY_S: Final = 30.0
"""What ran for so long is started again without delay, as if for the first time."""
SAID_AFTER: Final = 3
"""Ends at the start for the same reason: what happens twice may pass."""

log = structlog.get_logger(__name__)


class Part(NamedTuple):
    """A process to be kept: its name, how it is started, and why the one with a pid has ended, if it said so."""

    name: str
    launch: Callable[[], children.Child]
    failure: Callable[[int], Failure | None] = lambda _: None


class _Kept:
    """One part and its present process."""

    def __init__(self, part: Part, clock: Callable[[], float]) -> None:
        self.part = part
        self.restarts = 0
        self.process: children.Child | None = part.launch()
        self._clock = clock
        self._started_at = clock()
        self._delay_s = FIRST_DELAY_S
        self._due_at = 0.0
        self._reason: str | None = None
        self._same_reason = 0

    @property
    def info(self) -> ProcessInfo:
        return ProcessInfo(self.part.name, self.process.pid if self.process is not None else None, self.restarts)

    def look(self) -> None:
        """Notices an end, and starts again when it is time."""
        now = self._clock()
        if self.process is not None:
            if self.process.poll() is not None:
                self._ended(self.process, now)
        elif now >= self._due_at:
            self._start_again(now)

    def _start_again(self, now: float) -> None:
        """Whatever keeps it from being started, such as too little memory for a fork, can pass: the others go on."""
        try:
            self.process = self.part.launch()
        except Exception as error:
            log.warning("process cannot be started", part=self.part.name, error=repr(error), again_in_s=self._delay_s)
            self._wait(now)
        else:
            self.restarts += 1
            self._started_at = now

    def _ended(self, process: children.Child, now: float) -> None:
        was_steady = now - self._started_at >= STEADY_S
        if was_steady:
            self._delay_s = FIRST_DELAY_S
        log.warning("process ended", part=self.part.name, status=process.returncode, again_in_s=self._delay_s)
        failure = self.part.failure(process.pid)
        if was_steady and not (failure and failure.at_start):
            self._same_reason = 0
        else:
            self._count(failure.sentence if failure else f"it ended with status {process.returncode}")
        self.process = None
        self._wait(now)

    def _count(self, reason: str) -> None:
        """Says once what ends it at its start again and again."""
        self._same_reason = self._same_reason + 1 if reason == self._reason else 1
        self._reason = reason
        if self._same_reason == SAID_AFTER:
            log.error(f"{self.part.name} has ended {SAID_AFTER} times at its start: {reason}", part=self.part.name)

    def _wait(self, now: float) -> None:
        self._due_at = now + self._delay_s
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)


class Supervisor:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: list[_Kept] = []

    @property
    def processes(self) -> list[ProcessInfo]:
        return [kept.info for kept in self._kept]

    def start(self, part: Part) -> None:
        """Starts it, and keeps it running from now on."""
        self._kept.append(_Kept(part, self._clock))

    def look(self) -> None:
        """Call this some ten times a second."""
        for kept in self._kept:
            kept.look()

    def kill(self, name: str) -> None:
        """A frozen process hears nothing else. It is started again like whatever else ends."""
        for kept in self._kept:
            if kept.part.name == name and kept.process is not None:
                kept.process.kill()

    def drain(self, names: Sequence[str], grace_s: float) -> None:
        """Ends these parts, all at the same time, and keeps them no longer."""
        leaving = [kept for kept in self._kept if kept.part.name in names]
        self._kept = [kept for kept in self._kept if kept not in leaving]
        running = {kept.process.pid: kept for kept in leaving if kept.process is not None}
        processes = [kept.process for kept in running.values() if kept.process is not None]
        for process in children.stop_all(processes, grace_s):
            log.warning("process killed", part=running[process.pid].part.name, after_s=grace_s)
