"""The heartbeat of a loop: files in which it says that it is alive, which partitions it owns and that it is at work.
The supervisor reads them to find a loop that stands still.

    pulse/PROCESS/LOOP            pid, and the partitions that the loop owns
    pulse/PROCESS/LOOP.turned     touched at every turn of the loop, even if there was nothing to do
    pulse/PROCESS/LOOP.worked     touched during work that takes long without a commit: while the device works, while
                                  state is restored, while an outage is waited out

The loop touches the files itself. A separate thread would go on touching them after the loop has stopped.
Knows neither what the loop does nor what is done about one that stands still.
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
"""What work that takes long calls again and again, to say that its loop is alive: `Heartbeat.still_working`."""

_TURNED: Final = ".turned"
_WORKED: Final = ".worked"


def no_beat() -> None:
    """The `Beat` of a loop that nobody watches."""


class Heartbeat:
    """The heartbeat of a loop that nobody watches: it does nothing. `HeartbeatFile` writes the files."""

    def start(self) -> None:
        """Called when everything is put together and the loop begins. It owns nothing yet."""

    def owns(self, places: Collection[Place]) -> None:
        """From now on the loop owns these partitions and no others. Called before it restores or reads them."""

    def loop_turned(self) -> None:
        """Called at every turn of the loop, even if there is nothing to do."""

    def still_working(self) -> None:
        """Called again and again during work that takes long. From any thread."""


NO_HEARTBEAT: Final = Heartbeat()


class LastHeartbeat(NamedTuple):
    """What the files of a loop say now. `turned_ns` changes with every `loop_turned`, and `worked_ns` with every
    `still_working`."""

    pid: int
    owned: frozenset[Place]
    turned_ns: int
    worked_ns: int


class _Owner(msgspec.Struct, frozen=True):
    """The content of the file LOOP."""

    pid: int
    owned: list[Place]


class HeartbeatFile(Heartbeat):
    def __init__(
        self, data_dir: Path, process: str, loop: str = "loop", has_begun: Callable[[], None] = no_beat
    ) -> None:
        """`has_begun` is called at every turn after the group has given the loop its partitions. By then the broker has
        accepted the loop's clients, and its state is restored."""
        self._file = heartbeat_folder(data_dir) / process / loop
        self._has_begun = has_begun
        self._has_joined = False

    def start(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (_TURNED, _WORKED):
            _touched_file(self._file, suffix).touch()
        self._write(())

    def owns(self, places: Collection[Place]) -> None:
        self._has_joined = True
        self._write(places)

    def loop_turned(self) -> None:
        _touch(_touched_file(self._file, _TURNED))
        if self._has_joined:
            self._has_begun()

    def still_working(self) -> None:
        _touch(_touched_file(self._file, _WORKED))

    def _write(self, places: Collection[Place]) -> None:
        with suppress(FileNotFoundError):  # the data folder is being removed
            write_whole(self._file, msgspec.json.encode(_Owner(os.getpid(), sorted(places))))


def heartbeat_folder(data_dir: Path) -> Path:
    return data_dir / "pulse"


def read_heartbeats(data_dir: Path, process: str) -> dict[str, LastHeartbeat]:
    """By loop. Empty if the process has not begun yet."""
    files = sorted((heartbeat_folder(data_dir) / process).glob("[!.]*"))
    heartbeats = {file.name: _read(file) for file in files if file.suffix not in (_TURNED, _WORKED)}
    return {loop: heartbeat for loop, heartbeat in heartbeats.items() if heartbeat is not None}


def _read(file: Path) -> LastHeartbeat | None:
    try:
        owner = msgspec.json.decode(file.read_bytes(), type=_Owner)
        times_ns = (_touched_file(file, suffix).stat().st_mtime_ns for suffix in (_TURNED, _WORKED))
        return LastHeartbeat(owner.pid, frozenset(owner.owned), *times_ns)
    except FileNotFoundError:
        return None


def _touch(file: Path) -> None:
    with suppress(FileNotFoundError):  # the data folder is being removed
        os.utime(file)


def _touched_file(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)
