"""Finds processes that stand still: frozen, or alive with a loop that does nothing.

Each loop of a process reports which partitions it owns and when it last worked (`streams/kafka/heartbeat.py`). A
process stands still when

- one of its loops owns a partition with records to read, commits none of them, and does not report that it is working;
- or one of its loops has not come round for so long that its consumer group has removed it, whatever it owned;
- or a signal has stopped it, even if its partitions belong to another process by now.

So a process that owns no partition is never blamed for the backlog of another process. Commits alone would mislead: a
large model takes minutes for a batch, and a loop waits while the cold tier is away. While the broker cannot be asked,
the first case cannot be noticed.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import structlog

from nearline import children
from nearline.settings.instance import ProcessInfo
from nearline.settings.process_names import parse
from schemas.ids import Offset
from streams.errors import StreamsError
from streams.kafka.commit_watch import CommitWatch, Unchanged
from streams.kafka.heartbeat import LastHeartbeat, read_heartbeats
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_LOOKS: Final = 6
"""A process counts as stalled after this many looks without progress."""
_OUT_OF_GROUP_S: Final = 300.0
"""Kafka's `max.poll.interval.ms`: a consumer that has not polled for this long is removed from its group."""
Groups = Callable[[], Mapping[str, str]]
"""The consumer groups that are in use now, by the name of their processes without the slot, such as `encode-blue`."""

log = structlog.get_logger(__name__)


class _Loop(NamedTuple):
    """One loop of a process. The pid distinguishes the process from an earlier process of the same name."""

    process: str
    pid: int
    name: str


_Heartbeats = Mapping[_Loop, LastHeartbeat]


class StallDetector:
    """Call `start` and `close` once each. The broker is asked in a thread, because it may take long to answer."""

    def __init__(
        self,
        kafka: KafkaSettings,
        groups: Groups,
        data_dir: Path,
        after_s: float,
        out_of_group_s: float = _OUT_OF_GROUP_S,
    ) -> None:
        self._data_dir = data_dir
        self._every_s = after_s / _LOOKS
        self._kafka = kafka
        self._groups = groups
        # Only the thread uses it.
        self._stages: dict[tuple[str, str], _Stage] = {}
        # Two threads use the next two fields. Only one thread writes each field, always as a whole, so no lock is
        # needed.
        self._processes: tuple[ProcessInfo, ...] = ()
        self._stalled: frozenset[_Loop] = frozenset()
        self._turns = Unchanged[_Loop, tuple[int, int]](math.ceil(out_of_group_s / self._every_s))
        self._due_at = 0.0
        self._stopped = Unchanged[str, int](_LOOKS)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="stall-detector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops the thread, without waiting until the broker has answered its last request."""
        self._stop.set()

    def look(self) -> None:
        """Asks the broker and reads the loops' files once. The thread calls this again and again."""
        heartbeats = self._heartbeats()
        silent = self._turns.look(
            {loop: (heartbeat.turned_ns, heartbeat.worked_ns) for loop, heartbeat in heartbeats.items()}
        )
        self._follow_groups()
        stages = self._stages.values()
        self._stalled = frozenset((*silent, *(loop for stage in stages for loop in stage.stalled(heartbeats))))

    def stalled_names(self, processes: Sequence[ProcessInfo]) -> list[str]:
        """Names of the processes that stand still. Call this often: it looks `_LOOKS` times within `after_s`, and
        returns an empty list in between."""
        self._processes = tuple(processes)
        if time.monotonic() < self._due_at:
            return []
        self._due_at = time.monotonic() + self._every_s
        pids = {process.name: process.pid for process in processes if process.pid is not None}
        stalled = [loop.process for loop in self._stalled if pids.get(loop.process) == loop.pid]
        stopped = self._stopped.look({name: pid for name, pid in pids.items() if children.is_stopped(pid)})
        return sorted({*stalled, *stopped})

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except Exception:
                # Nobody would notice the end of this thread.
                log.exception("looking for processes that stand still failed; it is tried again")

    def _follow_groups(self) -> None:
        groups = self._groups().items()
        for key in self._stages.keys() - groups:
            self._stages.pop(key).close()
        for key in groups:
            if key not in self._stages:
                self._stages[key] = _Stage(self._kafka, *key)

    def _heartbeats(self) -> dict[_Loop, LastHeartbeat]:
        """The last reports of the loops of running processes. A process that still loads its model has reported
        nothing: if there are files of its name, an earlier process with another pid has written them."""
        return {
            _Loop(process.name, heartbeat.pid, name): heartbeat
            for process in self._processes
            for name, heartbeat in read_heartbeats(self._data_dir, process.name).items()
            if heartbeat.pid == process.pid
        }


class _Stage:
    """The loops of one consumer group."""

    def __init__(self, kafka: KafkaSettings, process: str, group: str) -> None:
        self._process = process
        self._watch = CommitWatch(kafka, group, _LOOKS)
        self._unchanged = Unchanged[tuple[_Loop, Place], tuple[int, Offset]](_LOOKS)

    def close(self) -> None:
        self._watch.close()

    def stalled(self, heartbeats: _Heartbeats) -> set[_Loop]:
        """The loops that for more than `_LOOKS` looks in a row owned the same partition, had something to read in it,
        committed nothing there and did not report work. Counting starts again when the broker cannot be asked."""
        loops = {
            loop: heartbeat for loop, heartbeat in heartbeats.items() if parse(loop.process).group == self._process
        }
        try:
            waiting = self._watch.waiting({place for heartbeat in loops.values() for place in heartbeat.owned})
        except StreamsError as error:
            log.debug("whether a stage moves is not known", stage=self._process, error=str(error))
            waiting = {}
        progress = {
            (loop, place): (heartbeat.worked_ns, waiting[place])
            for loop, heartbeat in loops.items()
            for place in heartbeat.owned & waiting.keys()
        }
        return {loop for loop, _ in self._unchanged.look(progress)}
