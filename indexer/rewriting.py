"""The folders of shards that are written anew: the engine only marks what is deleted, and vectors stay in its segments
and its log.

Owns the names beside a shard's folder, and the order of renaming: whenever a kill comes, the next start finds one whole
shard. Knows nothing of what is in a shard.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from indexer.errors import TierUnavailable

_NEW: Final = ".new"
_OLD: Final = ".old"
_ERASED: Final = ".erased"


class ErasedFrom:
    """Shards from which something was deleted since they were written, and when the first of it. Survives a restart: an
    empty file beside the shard has that time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since = {int(file.stem): file.stat().st_mtime for file in folder.glob(f"*{_ERASED}")}

    def note(self, place: int) -> None:
        """Before the deletion."""
        if place not in self._since:
            self._file(place).touch()
            self._since[place] = time.time()

    def older_than(self, age_s: float) -> list[int]:
        return sorted(place for place, since in self._since.items() if time.time() - since >= age_s)

    def forget(self, place: int) -> None:
        self._file(place).unlink(missing_ok=True)
        self._since.pop(place, None)

    def _file(self, place: int) -> Path:
        return self._folder / f"{place}{_ERASED}"


def recover(folder: Path) -> None:
    """After a kill within `swap` or before it."""
    for old in folder.glob(f"*{_OLD}"):
        if old.with_suffix("").exists():
            shutil.rmtree(old)
        else:
            old.rename(old.with_suffix(""))
    for new in folder.glob(f"*{_NEW}"):
        shutil.rmtree(new)


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
    """`new` takes the place of `current`, which is no more. Nobody has either of them open."""
    old = current.with_suffix(_OLD)
    current.rename(old)
    new.rename(current)
    shutil.rmtree(old)
