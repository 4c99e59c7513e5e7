"""The folders of shards: how a shard is replaced by its rewritten copy, and which shards still have to be rewritten.

The engine only marks points as deleted. Their vectors stay in its segments and its log until the shard is rewritten.
Owns the names beside a shard's folder `0` (`0.new`, `0.old`, `0.erased`) and the order of the renames: after a kill at
any moment the next start finds one whole shard. Knows only one of the files inside a shard.
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
"""Marks a shard with deleted vectors that are NOT yet erased. The misleading name stays because it is on disk."""
_ENGINE_CONFIG: Final = "edge_config.json"
"""Every shard has this file. The engine would also open an empty folder, as a shard without points."""


class PendingErasures:
    """Which shards still hold the vector of a deleted point in their files, and since when.

    Survives a restart: such a shard has an empty file beside it, whose mtime is the time of the oldest deletion."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._oldest_deletions = {
            int(file.stem): Micros(file.stat().st_mtime_ns // 1000) for file in folder.glob(f"*{_ERASED}")
        }

    def add(self, shard_id: int) -> None:
        """Call this before the deletion. The file is durable before the deletion, so that after a power cut no vector
        is forgotten in the files."""
        if shard_id in self._oldest_deletions:
            return
        now = self._clock()
        self._file(shard_id).touch()
        os.utime(self._file(shard_id), ns=(now * 1000, now * 1000))
        _sync(self._file(shard_id))
        _sync(self._folder)
        self._oldest_deletions[shard_id] = now

    def oldest_deletions(self) -> dict[int, Micros]:
        """By shard id: the time of the oldest deletion whose vector is still in the files."""
        return dict(self._oldest_deletions)

    def discard(self, shard_id: int) -> None:
        """Call this when the shard has been rewritten."""
        self._file(shard_id).unlink(missing_ok=True)
        self._oldest_deletions.pop(shard_id, None)

    def _file(self, shard_id: int) -> Path:
        return self._folder / f"{shard_id}{_ERASED}"


def recover(folder: Path) -> None:
    """Cleans up after a kill before or during `swap`. Call this at the start, when no shard is open."""
    for old in folder.glob(f"*{_OLD}"):
        recover_shard(folder, int(old.stem))
    for new in folder.glob(f"*{_NEW}"):
        shutil.rmtree(new, ignore_errors=True)


def recover_shard(folder: Path, shard_id: int) -> None:
    """Cleans up after a `swap` of this shard that failed. Afterwards its folder holds the old shard or the new one.

    Leaves all `.new` folders alone, because another shard may be in the middle of a copy. An old shard that cannot be
    removed now is removed by the next `swap`. Until then the erasure stays pending."""
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
    """An empty folder for the copy of a shard. It is removed at the end, unless `swap` has renamed it to the shard.
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
    """Puts the folder `new` in place of the folder `current`, and removes the old content. No shard in them may be
    open.

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
