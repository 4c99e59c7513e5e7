"""Remembers in the data folder by how much the times of a file of events were moved, under the file's digest.

A file that is sent again is then moved by the same, and gives the same events. Knows neither files nor events.
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from schemas.files import write_once

_FOLDER: Final = "shifts"
SECOND_US: Final = 1_000_000


class TimeShift(Struct, frozen=True):
    """`file` is the name under which the file was first sent, for people who look into the folder."""

    file: str
    shift_us: int


class TimeShifts:
    """Used by several processes at a time. Where two remember a shift for one file, the first one counts for both."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / _FOLDER

    def find(self, digest: str) -> int | None:
        try:
            return msgspec.json.decode(self._file(digest).read_bytes(), type=TimeShift).shift_us
        except FileNotFoundError:
            return None

    def remember(self, digest: str, shift: TimeShift) -> int:
        """Returns the shift that counts from now on: the earlier one, where there is one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_once(self._file(digest), msgspec.json.encode(shift))
        remembered_us = self.find(digest)
        return shift.shift_us if remembered_us is None else remembered_us

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def shift_to(now_us: int, newest_us: int) -> int:
    """The constant that moves the newest event to now. Whole seconds, so that the fractions of the times stay."""
    return (now_us - newest_us) // SECOND_US * SECOND_US
