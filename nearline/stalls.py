"""Sees processes that stand still: frozen, or alive with a loop that does nothing.

A process stands still when its stage has something to read and commits nothing, and when it has not said either that it
is at work (`streams/pulse.py`). Commits alone would not do: a large model takes minutes for a batch, and an outage of
the cold tier is waited out. While the broker cannot be asked nothing is known of them. And a process that a signal has
stopped stands still, also where its partitions have gone to another one meanwhile.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import structlog

from nearline import children
from nearline.build import COLD
from nearline.instance import ProcessInfo
from schemas.ids import Generation, Partition
from streams.commit_watch import CommitWatch, Unchanged
from streams.errors import StreamsError
from streams.lag import NO_GROUP, StageReads, stage_reads
from streams.pulse import Sign, read_pulse
from streams.records import Place
from streams.settings import KafkaSettings

_LOOKS: Final = 6
"""Within the time after which a process is taken for stalled."""
_PROCESSES_OF: Final = {"index": COLD}
"""Stages whose processes have another name."""

log = structlog.get_logger(__name__)


class _Watched(NamedTuple):
    stage: str
    watch: CommitWatch
    places: list[Place]


class Stalls:
    """`start` and `close` once. The broker is asked in a thread, because it may take its time to answer."""

    def __init__(self, kafka: KafkaSettings, generation: Generation, data_dir: Path, after_s: float) -> None:
        self._data_dir = data_dir
        self._every_s = after_s / _LOOKS
        self._watched = [_watched(kafka, read) for read in stage_reads(generation) if read.group != NO_GROUP]
        # Replaced as a whole by the thread.
        self._stalled: frozenset[str] = frozenset()
        self._due_at = 0.0
        self._signs = Unchanged[str, Sign](_LOOKS)
        self._stopped = Unchanged[str, int](_LOOKS)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="stalls", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Does not wait for an answer that is under way."""
        self._stop.set()

    def found(self, processes: Sequence[ProcessInfo]) -> list[str]:
        """Names of those that stand still. Call it often: it looks now and then."""
        if time.monotonic() < self._due_at:
            return []
        self._due_at = time.monotonic() + self._every_s
        pids = {process.name: process.pid for process in processes if process.pid is not None}
        signs = {name: read_pulse(self._data_dir, name) for name in pids}
        # One that has not begun yet may take long to load its model; what its file says is of the process before.
        begun = {name: sign for name, sign in signs.items() if sign is not None and sign.pid == pids[name]}
        silent = [name for name in self._signs.look(begun) if name.partition("-")[0] in self._stalled]
        stopped = self._stopped.look({name: pid for name, pid in pids.items() if children.is_stopped(pid)})
        return list({*silent, *stopped})

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._stalled = frozenset(self._stalled_stages())
            except Exception:
                # Whoever looks after the others must not be the one that ends unseen.
                log.exception("looking for stages that stand still failed; it is tried again")

    def _stalled_stages(self) -> Iterator[str]:
        for stage, watch, places in self._watched:
            try:
                if watch.stalled(places):
                    yield _PROCESSES_OF.get(stage, stage)
            except StreamsError as error:
                log.debug("whether a stage moves is not known", stage=stage, error=str(error))


def _watched(kafka: KafkaSettings, read: StageReads) -> _Watched:
    places = [Place(topic, Partition(number)) for topic in read.topics for number in range(kafka.partitions)]
    return _Watched(read.stage, CommitWatch(kafka, read.group, _LOOKS), places)
