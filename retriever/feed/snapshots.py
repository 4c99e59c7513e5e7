"""When the hot tier's snapshot is loaded, written and removed. How it is written is the tier's business.

A snapshot stands for offsets of one topic. Its folder is named after that topic's id, so that it is never taken for one
of a topic that was deleted and created again. Nothing that was deleted may stay on disk for too long, so a snapshot is
written anew in time, or removed. Of several processes that have the same folder, one writes. Knows no Kafka client.
"""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final

import structlog

from indexer.errors import IndexerError, SnapshotOfNewerForm, SnapshotRefused
from indexer.tiers import HotTier, Offsets, SnapshotMoment
from schemas.ids import Micros

_FINISH_S: Final = 6.0
"""How long to wait for one that is being written. A process has 9 s to stop; what is not whole by then is of no use,
and the snapshot before is still there."""

_BEGIN_S: Final = 1.0
"""How long the feed waits until one can be begun. That takes milliseconds, unless a device hangs."""

_log = structlog.get_logger(__name__)


class Snapshots:
    """Used by the hot feed's thread alone."""

    def __init__(
        self,
        folder: Path,
        hot: HotTier,
        topic_id: Callable[[], str],
        *,
        every_s: float,
        erase_within_s: float,
        writes: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The folder holds nothing else; it is made if need be. `topic_id` asks the broker for the id of the posts'
        topic, and may raise. `writes`: False for all processes but one that have this folder; they only load what that
        one writes, and remove what is of no use. `clock` gives seconds since 1970."""
        self._root = folder
        self._hot = hot
        self._topic_id = topic_id
        self._every_s = min(every_s, erase_within_s / 2)
        self._keep_s = erase_within_s * 3 / 4
        """After this time a snapshot is removed if no new one could be written."""
        self._writes = writes
        self._clock = clock
        self._folder: Path | None = None
        self._taken_at_s = max((entry.stat().st_mtime for entry in folder.glob("*")), default=None)
        """Of the snapshot on disk, or a little later. None: there is none."""
        self._next_at_s = 0.0
        self._left_alone_until_s = 0.0
        """Before that time the snapshot of a newer version is on disk, and is not replaced."""
        self._writing: tuple[float, Future[None]] | None = None
        """When it was taken, and its end."""
        self._is_void = False
        """The one that is being written is of no use."""

    def load(self) -> Offsets:
        """Fills the empty tier with the snapshot, and returns the offsets to go on at; none if there is no snapshot of
        this topic. May take seconds. Raises what `topic_id` raises."""
        self._folder = self._root / self._topic_id().replace("/", "_")
        for other in self._root.glob("*"):
            if other != self._folder:
                remove_snapshots(other)
        moment = self._load(self._folder)
        if moment is None:
            return {}
        now_s = self._clock()
        self._taken_at_s = min(moment.taken_at_us / 1e6, now_s)
        self._next_at_s = self._taken_at_s + self._every_s
        _log.info("snapshot of the hot tier loaded", posts=self._hot.count(), age_s=round(now_s - self._taken_at_s))
        return moment.next_offsets

    def tick(self, next_offsets: Offsets, *, caught_up: bool) -> None:
        """Call it often. Writes a snapshot if one is due, and removes one that is too old. `next_offsets` are those of
        the first records that the tier does not hold yet."""
        if not self._writes:
            return
        now_s = self._clock()
        self._end_writing()
        if self._taken_at_s is not None and now_s - self._taken_at_s > self._keep_s:
            _log.warning("the snapshot of the hot tier is removed, because no new one could be written in time")
            self._remove(self._root)
        if caught_up and self._writing is None and now_s >= max(self._next_at_s, self._left_alone_until_s):
            self._start_writing(next_offsets)

    def discard(self) -> None:
        """What is on disk, and what is being written, stands for records that may be lost."""
        self._wait_for_writing(time.monotonic() + _FINISH_S)
        self._is_void = self._writing is not None
        self._remove(self._root)
        self._next_at_s = self._left_alone_until_s = 0.0

    def finish(self, next_offsets: Offsets) -> None:
        """Writes a last one, if that is possible in a few seconds."""
        if not self._writes or self._clock() < self._left_alone_until_s:
            return
        deadline_s = time.monotonic() + _FINISH_S
        self._wait_for_writing(deadline_s)
        if self._writing is None:
            self._start_writing(next_offsets)
            self._wait_for_writing(deadline_s)

    def _wait_for_writing(self, deadline_s: float) -> None:
        if self._writing is not None:
            wait([self._writing[1]], max(0.0, deadline_s - time.monotonic()))
        self._end_writing()

    def _load(self, folder: Path) -> SnapshotMoment | None:
        if not folder.is_dir():
            return None
        try:
            return self._hot.load(folder)
        except SnapshotOfNewerForm as error:
            _log.warning("a newer version wrote the snapshot of the hot tier, so the topic is read", error=str(error))
            # Until it has to be removed because of what has been erased since.
            self._left_alone_until_s = (self._taken_at_s or 0.0) + self._keep_s
            return None
        except (SnapshotRefused, OSError) as error:
            _log.warning("the snapshot of the hot tier is of no use, so the topic is read", error=str(error))
            self._remove(folder)
            return None

    def _start_writing(self, next_offsets: Offsets) -> None:
        now_s = self._clock()
        self._next_at_s = now_s + self._every_s
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            moment = SnapshotMoment(dict(next_offsets), Micros(int(now_s * 1e6)))
            future = self._hot.save(self._folder, moment, timeout_s=_BEGIN_S)
        except (OSError, IndexerError) as error:
            _failed(error)
        else:
            self._writing = now_s, future

    def _end_writing(self) -> None:
        if self._writing is None or not self._writing[1].done():
            return
        taken_at_s, future = self._writing
        self._writing = None
        try:
            future.result()
        except (OSError, IndexerError) as error:
            _failed(error)
        else:
            self._taken_at_s = taken_at_s
        if self._is_void:
            self._is_void = False
            self._remove(self._root)

    def _remove(self, folder: Path) -> None:
        remove_snapshots(folder)
        self._taken_at_s = None


def remove_snapshots(folder: Path) -> None:
    """Does nothing if there are none."""
    shutil.rmtree(folder, ignore_errors=True)


def _failed(error: Exception) -> None:
    _log.warning("the snapshot of the hot tier cannot be written", error=str(error))
