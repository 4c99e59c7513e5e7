"""Sees processes that stand still: frozen, or alive with a loop that does nothing.

A loop is judged by the partitions that it owns, and by what it says itself (`streams/kafka/heartbeat.py`):

- it owns a partition with something to read, commits nothing of it, and does not say that it is at work;
- or it has not come round for so long that its consumer group has put it out, whatever it owned.

So neither another machine's backlog nor a slow worker is held against a process that has nothing to do. Commits alone
would not do: a large model takes minutes for a batch, and an outage of the cold tier is waited out. While the broker
cannot be asked nothing is known of partitions. And a process that a signal has stopped stands still, also where its
partitions have gone to another one meanwhile.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import structlog

from nearline import children
from nearline.settings.instance import ProcessInfo
from nearline.up.build import COLD
from schemas.ids import Generation, Offset
from schemas.stages import NO_GROUP, all_stages
from streams.errors import StreamsError
from streams.kafka.commit_watch import CommitWatch, Unchanged
from streams.kafka.heartbeat import LastHeartbeat, read_heartbeats
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_LOOKS: Final = 6
"""Within the time after which a process is taken for stalled."""
_OUT_OF_GROUP_S: Final = 300.0
"""Kafka's `max.poll.interval.ms`: who has not asked for records for so long is out of its group."""
_PROCESSES_OF: Final = {"index": COLD}
"""Stages whose processes have another name."""

log = structlog.get_logger(__name__)


class _Loop(NamedTuple):
    """One of a process. `pid` tells it from the one before it under the same name."""

    process: str
    pid: int
    name: str


_Heartbeats = Mapping[_Loop, LastHeartbeat]


class Stalls:
    """`start` and `close` once. The broker is asked in a thread, because it may take its time to answer."""

    def __init__(
        self,
        kafka: KafkaSettings,
        generation: Generation,
        data_dir: Path,
        after_s: float,
        out_of_group_s: float = _OUT_OF_GROUP_S,
    ) -> None:
        self._data_dir = data_dir
        self._every_s = after_s / _LOOKS
        groups = {_PROCESSES_OF.get(read.stage, read.stage): read.group for read in all_stages(generation)}
        self._stages = [_Stage(kafka, name, group) for name, group in groups.items() if group != NO_GROUP]
        # Both are replaced as a whole, each by one thread.
        self._processes: tuple[ProcessInfo, ...] = ()
        self._stalled: frozenset[_Loop] = frozenset()
        self._silent = Unchanged[_Loop, tuple[int, int]](math.ceil(out_of_group_s / self._every_s))
        self._due_at = 0.0
        self._stopped = Unchanged[str, int](_LOOKS)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="stalls", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Does not wait for an answer that is under way."""
        self._stop.set()

    def look(self) -> None:
        """Once at everything that is asked of the broker or read in files. The thread does it again and again."""
        heartbeats = self._heartbeats()
        out = self._silent.look(
            {loop: (heartbeat.turned_ns, heartbeat.worked_ns) for loop, heartbeat in heartbeats.items()}
        )
        self._stalled = frozenset((*out, *(loop for stage in self._stages for loop in stage.stalled(heartbeats))))

    def found(self, processes: Sequence[ProcessInfo]) -> list[str]:
        """Names of those that stand still. Call it often: it looks now and then."""
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
                # Whoever looks after the others must not be the one that ends unseen.
                log.exception("looking for processes that stand still failed; it is tried again")

    def _heartbeats(self) -> dict[_Loop, LastHeartbeat]:
        """Of processes that run. One that has not begun yet may take long to load its model; what its files say is of
        the process before."""
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
        self._waiting = Unchanged[tuple[_Loop, Place], tuple[int, Offset]](_LOOKS)

    def stalled(self, heartbeats: _Heartbeats) -> set[_Loop]:
        """Those that had something to read, committed nothing and were not at work at more than so many looks in a row,
        all on one partition that was theirs all the time. Counting begins anew when the broker cannot be asked."""
        own = {
            loop: heartbeat for loop, heartbeat in heartbeats.items() if loop.process.partition("-")[0] == self._process
        }
        try:
            waiting = self._watch.waiting({place for heartbeat in own.values() for place in heartbeat.owned})
        except StreamsError as error:
            log.debug("whether a stage moves is not known", stage=self._process, error=str(error))
            waiting = {}
        looks = {
            (loop, place): (heartbeat.worked_ns, waiting[place])
            for loop, heartbeat in own.items()
            for place in heartbeat.owned & waiting.keys()
        }
        return {loop for loop, _ in self._waiting.look(looks)}
