"""Keeps processes running: starts them, restarts a process that ends, and stops them in order.

Knows nothing of what a process does. Everything here is called from the main thread, because the kernel kills a process
when the thread that started it ends.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from nearline import children
from nearline.settings.instance import ProcessInfo
from nearline.up.failure_reports import FailureReport

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 5.0
"""A stage ends its process when the broker is away. So it may take this long until the stage runs again after the
broker is back."""
STEADY_S: Final = 30.0
"""A process that ran for this long is restarted after the first delay again."""
START_AGAIN: Final = 3
"""The exit status of a process that wants to be started again at once. That is no failure, and not counted."""
LOGGED_AFTER: Final = 3
"""An error is logged if a process ends this many times in a row at its start, for the same reason. A reason that comes
only twice may pass by itself."""

log = structlog.get_logger(__name__)


class Part(NamedTuple):
    """A process to keep running. `failure` takes the pid of an ended process, and returns the report that this process
    has left, or None."""

    name: str
    launch: Callable[[], children.Child]
    failure: Callable[[int], FailureReport | None] = lambda _: None


class _SupervisedPart:
    """One part and its current process."""

    def __init__(self, part: Part, clock: Callable[[], float]) -> None:
        self.part = part
        self.restarts = 0
        self.process: children.Child | None = None
        self._clock = clock
        self._started_at = clock()
        self._was_started = False
        self._delay_s = FIRST_DELAY_S
        self._due_at = 0.0
        self._reason: str | None = None
        self._num_same_reason = 0
        self._kill_at: float | None = None
        """Set while it is being ended for good."""
        self._launch(self._started_at)

    @property
    def info(self) -> ProcessInfo:
        return ProcessInfo(self.part.name, self.process.pid if self.process is not None else None, self.restarts)

    @property
    def is_over(self) -> bool:
        """It was told to end for good, and has ended."""
        return self._kill_at is not None and self.process is None

    def look(self) -> None:
        """Notices that the process has ended, and restarts it when its delay is over."""
        now = self._clock()
        if self._kill_at is not None:
            self._look_at_its_end(now, self._kill_at)
        elif self.process is not None:
            if self.process.poll() is not None:
                self._on_end(self.process, now)
        elif now >= self._due_at:
            again = self._was_started
            self.restarts += self._launch(now) and again

    def end(self, grace_s: float) -> None:
        """Tells the process to end, and starts none any more."""
        if self._kill_at is None:
            self._kill_at = self._clock() + grace_s
            if self.process is not None:
                self.process.terminate()

    def _look_at_its_end(self, now: float, kill_at: float) -> None:
        if self.process is not None and self.process.poll() is None and now >= kill_at:
            log.warning("process killed", part=self.part.name)
            self.process.kill()
            self.process.wait()
        if self.process is not None and self.process.poll() is not None:
            self.process = None

    def _launch(self, now: float) -> bool:
        """Launches the process, and returns True. After an error, such as too little memory for a fork, the next
        try comes later; the other parts are not affected."""
        try:
            self.process = self.part.launch()
        except Exception as error:
            log.warning("process cannot be started", part=self.part.name, error=repr(error), again_in_s=self._delay_s)
            self._schedule_restart(now)
            return False
        self._started_at = now
        self._was_started = True
        return True

    def _on_end(self, process: children.Child, now: float) -> None:
        self.process = None
        if process.returncode == START_AGAIN:
            self._launch(now)
            return
        was_steady = now - self._started_at >= STEADY_S
        if was_steady:
            self._delay_s = FIRST_DELAY_S
        log.warning("process ended", part=self.part.name, status=process.returncode, again_in_s=self._delay_s)
        failure = self.part.failure(process.pid)
        if was_steady and not (failure and failure.at_start):
            self._num_same_reason = 0
        else:
            self._count_reason(failure.sentence if failure else f"it ended with status {process.returncode}")
        self._schedule_restart(now)

    def _count_reason(self, reason: str) -> None:
        """Logs once that the process ends at its start again and again for this reason."""
        self._num_same_reason = self._num_same_reason + 1 if reason == self._reason else 1
        self._reason = reason
        if self._num_same_reason == LOGGED_AFTER:
            log.error(f"{self.part.name} has ended {LOGGED_AFTER} times at its start: {reason}", part=self.part.name)

    def _schedule_restart(self, now: float) -> None:
        self._due_at = now + self._delay_s
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)


class Supervisor:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parts: list[_SupervisedPart] = []

    @property
    def processes(self) -> list[ProcessInfo]:
        return [supervised.info for supervised in self._parts]

    def start(self, part: Part) -> None:
        """Starts the part, and keeps it running from now on, also where it cannot be launched yet."""
        self._parts.append(_SupervisedPart(part, self._clock))

    def look(self) -> None:
        """Call this about ten times a second."""
        for supervised in self._parts:
            supervised.look()
        self._parts = [supervised for supervised in self._parts if not supervised.is_over]

    def end(self, name: str, grace_s: float) -> None:
        """Tells this part to end, and does not restart it. Does not wait: it stays among the processes until it has
        ended. After `grace_s` it is killed."""
        for supervised in self._parts:
            if supervised.part.name == name:
                supervised.end(grace_s)

    def kill(self, name: str) -> None:
        """Sends SIGKILL, the only signal that ends a frozen process. The part is then restarted as after any end."""
        for supervised in self._parts:
            if supervised.part.name == name and supervised.process is not None:
                supervised.process.kill()

    def drain(self, names: Sequence[str], grace_s: float) -> None:
        """Stops these parts, all at the same time, and does not restart them."""
        stopping = [supervised for supervised in self._parts if supervised.part.name in names]
        self._parts = [supervised for supervised in self._parts if supervised not in stopping]
        running = {each.process: each.part.name for each in stopping if each.process is not None}
        for process in children.stop_all(list(running), grace_s):
            log.warning("process killed", part=running[process], after_s=grace_s)
