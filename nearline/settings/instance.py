"""The running instance of a data folder: one small JSON file that `nearline up` writes and every command reads."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from nearline.errors import AlreadyRuns, NotRunning
from schemas.files import write_whole

_LOOKED_AT_S: Final = 1.0
"""Whoever looks whether the folder is locked holds the lock for a moment."""
_PAUSE_S: Final = 0.02


class ProcessInfo(Struct, frozen=True):
    name: str
    pid: int | None
    restarts: int


class Instance(Struct, frozen=True):
    """Where the parts of a running instance are. Holds no secret."""

    supervisor_pid: int
    bootstrap_servers: str
    generation: str
    package: str
    """The model package's folder."""
    cold_socket: str | None
    """Unix socket of the cold process; None where a Qdrant server is the cold tier."""
    url: str | None
    """Of the retriever, once it listens."""
    ready: bool
    processes: list[ProcessInfo]
    started_at: str


def instance_file(data_dir: Path) -> Path:
    return data_dir / "instance.json"


def write_instance(data_dir: Path, instance: Instance) -> None:
    """Whole or not at all: readers never see half a file."""
    write_whole(instance_file(data_dir), msgspec.json.encode(instance))


def read_last_instance(data_dir: Path) -> Instance:
    """Also of one that was killed. Raises NotRunning when there is none."""
    try:
        return msgspec.json.decode(instance_file(data_dir).read_bytes(), type=Instance)
    except (OSError, msgspec.DecodeError):
        raise NotRunning(data_dir) from None


def read_instance(data_dir: Path) -> Instance:
    """Raises NotRunning when there is none, or when its supervisor is gone."""
    instance = read_last_instance(data_dir)
    if not _is_locked(data_dir):
        raise NotRunning(data_dir)
    return instance


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """One `nearline up` for one folder, and the sign that it runs: a pid may be given out again, and the lock ends with
    the process, however it ends. Raises AlreadyRuns."""
    deadline = time.monotonic() + _LOOKED_AT_S
    with _lock_file(data_dir).open("w") as file:
        while not _take(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise AlreadyRuns(data_dir)
            time.sleep(_PAUSE_S)
        yield


def _is_locked(data_dir: Path) -> bool:
    try:
        with _lock_file(data_dir).open() as file:
            return not _take(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # another account's, and it has written `instance.json`


def _take(file: IO[str], kind: int) -> bool:
    """Kept until the file is closed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "lock"
