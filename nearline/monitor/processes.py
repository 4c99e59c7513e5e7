"""How the processes of the instance on this data folder are: running, stopped by a signal, or gone, and since when.

Reads what the supervisor and the processes' loops write. Knows no stage's work.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from nearline import children
from nearline.errors import NotRunning
from nearline.monitor.judgement import ProcessSeen, ProcessState
from nearline.settings.instance import ProcessInfo, read_instance
from streams.kafka.heartbeat import read_heartbeats

STEADY_S: Final = 15.0
"""A process that has run for so long does not end again and again, nor does one that has reported work. The retriever
reports none, and is named for so long after its mend."""


class _Steady(NamedTuple):
    """When a process was last seen to run without having ended before, or was first seen at all."""

    at_s: float
    restarts: int


class ProcessWatch:
    """Any thread may look."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._since: dict[tuple[str, int | None, ProcessState], float] = {}
        self._steady: dict[str, _Steady] = {}

    def look(self) -> list[ProcessSeen]:
        """Empty where `nearline run` runs them, of which nobody has a list."""
        try:
            processes = read_instance(self._data_dir).processes
        except NotRunning:
            processes = []
        return self.look_at(processes)

    def look_at(self, processes: Sequence[ProcessInfo]) -> list[ProcessSeen]:
        """The same for processes whose list is known."""
        now_s = self._clock()
        states = {process: state_of(process) for process in processes}
        keys = {process: (process.name, process.pid, state) for process, state in states.items()}
        before, last_steady = self._since, self._steady
        since = {key: before.get(key, now_s) for key in keys.values()}
        self._since = since  # always as a whole
        seen = [
            ProcessSeen(*keys[process], now_s - since[keys[process]], idle_s(self._data_dir, process), process.restarts)
            for process in processes
        ]
        self._steady = steady = {each.name: _last_steady(each, last_steady.get(each.name), now_s) for each in seen}
        return [
            each._replace(ends=each.restarts - steady[each.name].restarts, unsteady_s=now_s - steady[each.name].at_s)
            for each in seen
        ]


def _last_steady(seen: ProcessSeen, before: _Steady | None, now_s: float) -> _Steady:
    if before is None or seen.restarts < before.restarts:
        return _Steady(now_s, seen.restarts)
    is_steady = seen.for_s >= STEADY_S or seen.idle_s is not None or seen.restarts == before.restarts
    return _Steady(now_s, seen.restarts) if seen.state == "running" and is_steady else before


def state_of(process: ProcessInfo) -> ProcessState:
    if process.pid is None:
        return "gone"
    return "stopped" if children.is_stopped(process.pid) else "running"


def idle_s(data_dir: Path, process: ProcessInfo) -> float | None:
    """For how long none of its loops has reported work. None if it has not begun yet, or has no loop that reports."""
    heartbeats = read_heartbeats(data_dir, process.name).values()
    worked = [heartbeat.worked_ns for heartbeat in heartbeats if heartbeat.pid == process.pid]
    return max(0.0, (time.time_ns() - max(worked)) / 1e9) if worked else None
