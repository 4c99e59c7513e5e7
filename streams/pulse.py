"""A process says that it is at work, by touching a file of its own; whoever looks after it sees whether it still does.

A loop beats where it takes long without a commit: while the device works, while state is restored, while an outage is
waited out. Not from a thread of its own, which would go on when the loop stands still.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

Beat = Callable[[], None]


def no_beat() -> None:
    """Nobody looks."""


class Sign(NamedTuple):
    """Of a process that has begun: it changes with every beat."""

    pid: int
    at_ns: int


class Pulse:
    def __init__(self, data_dir: Path, name: str) -> None:
        self._file = _file(data_dir, name)

    def start(self) -> None:
        """Everything is put together, and the loop begins."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(str(os.getpid()))
        temporary.replace(self._file)

    def beat(self) -> None:
        """From any thread."""
        with suppress(FileNotFoundError):  # the data folder is being taken away
            os.utime(self._file)


def pulse_folder(data_dir: Path) -> Path:
    return data_dir / "pulse"


def read_pulse(data_dir: Path, name: str) -> Sign | None:
    """None where it has not begun yet."""
    file = _file(data_dir, name)
    try:
        return Sign(int(file.read_text()), file.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _file(data_dir: Path, name: str) -> Path:
    return pulse_folder(data_dir) / name
