"""The folders of shards: how a shard is replaced by its rewritten copy, and which shards still have to be rewritten.

The engine only marks points as deleted. Their vectors stay in its segments and its log until the shard is rewritten.
This file owns the names beside a shard's folder (`0.new`, `0.old`, `0.erased` beside `0`) and the order of the renames:
whenever a kill comes, the next start finds one whole shard. Of what is in a shard it knows one file name.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from indexer.errors import TierUnavailable
from indexer.tiers import Clock
from schemas.ids import Micros

_NEW: Final = ".new"
_OLD: Final = ".old"
_ERASED: Final = ".erased"
_ENGINE_CONFIG: Final = "edge_config.json"
"""Every shard has this file. The engine would also open an empty folder, as a shard without points."""


class PendingErasures:
    """Which shards still hold the vector of a deleted point in their files, and since when.

    Survives a restart: an empty file beside the shard has the time of the first deletion as its mtime."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._since = {int(file.stem): Micros(file.stat().st_mtime_ns // 1000) for file in folder.glob(f"*{_ERASED}")}

    def add(self, shard_id: int) -> None:
        """Call it before the deletion. The file is durable before the deletion is, so that a power cut cannot keep a
        vector forever."""
        if shard_id in self._since:
            return
        now = self._clock()
        self._file(shard_id).touch()
        os.utime(self._file(shard_id), ns=(now * 1000, now * 1000))
        _sync(self._file(shard_id))
        _sync(self._folder)
        self._since[shard_id] = now

    def since(self) -> dict[int, Micros]:
        """By shard: the time of the oldest deletion whose vector is still in the files."""
        return dict(self._since)

    def discard(self, shard_id: int) -> None:
        """Call it when the shard was rewritten."""
        self._file(shard_id).unlink(missing_ok=True)
        self._since.pop(shard_id, None)

    def _file(self, shard_id: int) -> Path:
        return self._folder / f"{shard_id}{_ERASED}"


def recover(folder: Path) -> None:
    """Cleans up after a kill before or during `swap`. Call it at the start, when no shard is open."""
    for old in folder.glob(f"*{_OLD}"):
        recover_shard(folder, int(old.stem))
    for new in folder.glob(f"*{_NEW}"):
        shutil.rmtree(new, ignore_errors=True)


def recover_shard(folder: Path, shard_id: int) -> None:
    """Cleans up after a `swap` of this shard that failed: afterwards its folder holds the old shard or the new one.

    Leaves all `.new` folders alone, because another shard may be being copied. An old shard that cannot be removed now
    is removed by the next `swap`; until then the shard still counts as one with a pending erasure."""
    current = folder / str(shard_id)
    old = current.with_suffix(_OLD)
    if not old.exists():
        return
    if current.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(current)


@contextmanager
def new_folder(folder: Path, shard_id: int) -> Iterator[Path]:
    """An empty folder for the copy of a shard. Removed at the end, unless `swap` has moved it to the shard's name.
    Raises TierUnavailable."""
    new = folder / f"{shard_id}{_NEW}"
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
    except OSError as error:
        raise TierUnavailable(f"{new} cannot be made: {error.strerror}") from error
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def swap(new: Path, current: Path) -> None:
    """Replaces the folder `current` by `new` and removes the old one. Neither may be open.

    Raises OSError; then call `recover_shard`. Raises FileNotFoundError, before anything is moved, if `new` is not a
    whole shard."""
    if not (new / _ENGINE_CONFIG).exists():
        raise FileNotFoundError(f"{new} has no {_ENGINE_CONFIG}, so it is no whole copy")
    old = current.with_suffix(_OLD)
    if old.exists():
        shutil.rmtree(old)
    current.rename(old)
    new.rename(current)
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
