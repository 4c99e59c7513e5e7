"""By how much the times of a file of events were moved, remembered in the data folder by the file's digest.

So the same file sent again is the same events. Knows neither files nor events.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

_FOLDER: Final = "shifts"
SECOND_US: Final = 1_000_000


class TimeShift(Struct, frozen=True):
    """`file` is the name at the first time, for people who look into the folder."""

    file: str
    shift_us: int


class TimeShifts:
    """Any process may look and remember; of two that remember at once, the first wins for both."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / _FOLDER

    def find(self, digest: str) -> int | None:
        try:
            return msgspec.json.decode((self._folder / f"{digest}.json").read_bytes(), type=TimeShift).shift_us
        except FileNotFoundError:
            return None

    def remember(self, digest: str, shift: TimeShift) -> int:
        """Returns what holds from now on, which is the earlier shift where there is one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f"{digest}.{os.getpid()}.tmp"
        temporary.write_bytes(msgspec.json.encode(shift))
        try:
            (self._folder / f"{digest}.json").hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        found = self.find(digest)
        return shift.shift_us if found is None else found


def shift_to(now_us: int, newest_us: int) -> int:
    """The constant that makes the newest event now, in whole seconds, so that times keep their look."""
    return (now_us - newest_us) // SECOND_US * SECOND_US
