"""Which files of a package have been hashed on this machine, so that the next process need not hash them again: the
weights of a large model are many gigabytes.

A note for each package says what the kernel knew of each file when it was hashed. Whoever writes to a file, replaces it
or puts it back changes that; the time of such a change (ctime) cannot be set. Imports no torch.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from schemas.files import write_whole

_SETTLED_NS: Final = 2_000_000_000
"""A file that has changed a moment ago is not noted: a second change in the same tick of the clock would not show."""

FileStates = dict[str, tuple[int, ...]]
"""By name: device, inode, size, and the times of the last change of its content and of anything."""


class CheckedFiles:
    """Any process may use it at the same time. A note that cannot be read or written is as good as none."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when it is needed."""
        self._folder = folder

    def has(self, package: Path, digest: str, states: FileStates) -> bool:
        """Whether these files were hashed in this state. `digest`: of nearline.json, which says what they must be."""
        try:
            noted = msgspec.json.decode(self._note(package, digest).read_bytes(), type=FileStates)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return False
        return noted == states

    def remember(self, package: Path, digest: str, states: FileStates) -> None:
        """`states` from before the files were hashed."""
        newest_ns = max((state[-1] for state in states.values()), default=0)
        if newest_ns > time.time_ns() - _SETTLED_NS:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._note(package, digest), msgspec.json.encode(states), mode=0o600)
        except OSError:
            return

    def _note(self, package: Path, digest: str) -> Path:
        """The same package may lie in several folders."""
        name = hashlib.sha256(f"{digest} {package.resolve()}".encode()).hexdigest()
        return self._folder / f"{name[:32]}.json"


def file_states(package: Path, names: Iterable[str]) -> FileStates:
    """Raises OSError."""
    return {name: _state(os.stat(package / name)) for name in names}


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
