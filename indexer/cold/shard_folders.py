"""The folders of shards that are written anew: the engine only marks what is deleted, and vectors stay in its segments
and its log.

Owns the names beside a shard's folder, and the order of renaming: whenever a kill comes, the next start finds one whole
shard. Of what is in a shard it knows the name of one file.
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
"""Every shard has this file. The engine opens an empty folder too, as a shard without points."""


class PendingErasures:
    """Shards from which something was deleted since they were written, and when the first of it. Survives a restart: an
    empty file beside the shard has that time."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._since = {int(file.stem): Micros(file.stat().st_mtime_ns // 1000) for file in folder.glob(f"*{_ERASED}")}

    def note(self, place: int) -> None:
        """Before the deletion. Durable before the deletion is, so that a power cut cannot keep a vector for good."""
        if place in self._since:
            return
        now = self._clock()
        self._file(place).touch()
        os.utime(self._file(place), ns=(now * 1000, now * 1000))
        _sync(self._file(place))
        _sync(self._folder)
        self._since[place] = now

    def since(self) -> dict[int, Micros]:
        """When the first vector was deleted that a shard's files still have, by shard."""
        return dict(self._since)

    def forget(self, place: int) -> None:
        self._file(place).unlink(missing_ok=True)
        self._since.pop(place, None)

    def _file(self, place: int) -> Path:
        return self._folder / f"{place}{_ERASED}"


def recover(folder: Path) -> None:
    """At the start, when no shard is open and no copy is made: after a kill within `swap` or before it."""
    for old in folder.glob(f"*{_OLD}"):
        recover_shard(folder, int(old.stem))
    for new in folder.glob(f"*{_NEW}"):
        shutil.rmtree(new, ignore_errors=True)


def recover_shard(folder: Path, place: int) -> None:
    """After a `swap` of this shard that failed. Touches no copy, since one of another shard may be in the making. An
    old shard that cannot be removed stays for the next `swap`, which is still to come: until then the shard counts as
    one with erased vectors."""
    current = folder / str(place)
    old = current.with_suffix(_OLD)
    if not old.exists():
        return
    if current.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(current)


@contextmanager
def new_folder(folder: Path, place: int) -> Iterator[Path]:
    """An empty folder for the copy of a shard; gone afterwards, unless it has taken the shard's place. Raises
    TierUnavailable."""
    new = folder / f"{place}{_NEW}"
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
    """`new` takes the place of `current`, which is no more. Nobody has either of them open. After an OSError
    `recover_shard` makes one of the two the current one; a `new` that is not whole is refused with one."""
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
