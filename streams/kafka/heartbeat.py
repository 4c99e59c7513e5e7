"""A loop says that it is alive, what it owns and that it is at work, in files of its own; whoever looks after its
process sees whether it still does.

    pulse/PROCESS/LOOP            pid, and the partitions that the loop owns
    pulse/PROCESS/LOOP.turned     touched with every turn of the loop, also of one that has nothing to do
    pulse/PROCESS/LOOP.worked     touched where it takes long without a commit: while the device works, while state is
                                  restored, while an outage is waited out

Not from a thread of its own, which would go on when the loop stands still.
"""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from schemas.files import write_whole
from streams.kafka.records import Place

Beat = Callable[[], None]

_TURNED: Final = ".turned"
_WORKED: Final = ".worked"


def no_beat() -> None:
    """Nobody looks."""


class Heartbeat:
    """Of a loop that nobody looks after: says nothing. `HeartbeatFile` says it in files."""

    def start(self) -> None:
        """Everything is put together, and the loop begins. It owns nothing yet."""

    def owns(self, places: Collection[Place]) -> None:
        """These partitions, and no others, are the loop's from now on: said before it restores or reads them."""

    def turn(self) -> None:
        """The loop has come round."""

    def beat(self) -> None:
        """The loop is at work on something that takes long. From any thread."""


NO_HEARTBEAT: Final = Heartbeat()


class LastHeartbeat(NamedTuple):
    """What a loop that has begun has said last. Both times are nanoseconds, and change with every turn or beat."""

    pid: int
    owned: frozenset[Place]
    turned_ns: int
    worked_ns: int


class _Said(msgspec.Struct, frozen=True):
    """The file's own content."""

    pid: int
    owned: list[Place]


class HeartbeatFile(Heartbeat):
    def __init__(
        self, data_dir: Path, process: str, loop: str = "loop", has_begun: Callable[[], None] = no_beat
    ) -> None:
        """`has_begun` is called when the loop comes round with the partitions that its group has given it: then it
        has been let in everywhere, and its state is restored."""
        self._file = heartbeat_folder(data_dir) / process / loop
        self._has_begun = has_begun
        self._has_joined = False

    def start(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (_TURNED, _WORKED):
            _marker(self._file, suffix).touch()
        self._say(())

    def owns(self, places: Collection[Place]) -> None:
        self._has_joined = True
        self._say(places)

    def turn(self) -> None:
        _touch(_marker(self._file, _TURNED))
        if self._has_joined:
            self._has_begun()

    def beat(self) -> None:
        _touch(_marker(self._file, _WORKED))

    def _say(self, places: Collection[Place]) -> None:
        with suppress(FileNotFoundError):  # the data folder is being taken away
            write_whole(self._file, msgspec.json.encode(_Said(os.getpid(), sorted(places))))


def heartbeat_folder(data_dir: Path) -> Path:
    return data_dir / "pulse"


def read_heartbeats(data_dir: Path, process: str) -> dict[str, LastHeartbeat]:
    """By loop. Empty where the process has not begun yet."""
    files = sorted((heartbeat_folder(data_dir) / process).glob("[!.]*"))
    heartbeats = {file.name: _read(file) for file in files if file.suffix not in (_TURNED, _WORKED)}
    return {loop: heartbeat for loop, heartbeat in heartbeats.items() if heartbeat is not None}


def _read(file: Path) -> LastHeartbeat | None:
    try:
        said = msgspec.json.decode(file.read_bytes(), type=_Said)
        times_ns = (_marker(file, suffix).stat().st_mtime_ns for suffix in (_TURNED, _WORKED))
        return LastHeartbeat(said.pid, frozenset(said.owned), *times_ns)
    except FileNotFoundError:
        return None


def _touch(file: Path) -> None:
    with suppress(FileNotFoundError):  # the data folder is being taken away
        os.utime(file)


def _marker(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)
