"""The running instance of a data folder: `instance.json`, which `nearline up` writes and commands read, and the lock.

The lock says that the instance runs: the file stays behind when `nearline up` is killed.
"""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct

from nearline.errors import AlreadyRuns, NotRunning
from schemas.files import write_whole

_OTHERS_LOOK_S: Final = 1.0
"""A command that checks whether the folder is locked holds the lock itself for a moment."""
_PAUSE_S: Final = 0.02


class ProcessInfo(Struct, frozen=True):
    name: str
    pid: int | None
    restarts: int


class LivingHere(Struct, frozen=True):
    """A generation that lives at a place."""

    generation: str
    state: str
    package: str
    """The model package's folder on this machine."""
    cold_socket: str | None
    """The Unix socket of its cold process. None where a Qdrant server is the cold tier."""


class Instance(Struct, frozen=True):
    """Where the parts of a running instance can be reached. Holds no secret."""

    supervisor_pid: int
    bootstrap_servers: str
    generation: str
    """The serving one; so are its package's folder and its cold tier's socket."""
    package: str
    cold_socket: str | None
    url: str | None
    """The retriever's URL. None until it listens."""
    ready: bool
    processes: list[ProcessInfo]
    started_at: str
    grpc: str | None = None
    """Host and port of the retriever's gRPC service. None until it listens."""
    places: dict[str, LivingHere] = {}
    """Empty places are left out."""
    workers: dict[str, str] = {}
    """Of each process of a retriever that consists of several, by its name: the URL at which it alone can be asked.
    Empty where there is one process."""
    monitor: str | None = None
    """The monitor's URL."""


def instance_file(data_dir: Path) -> Path:
    return data_dir / "instance.json"


def write_instance(data_dir: Path, instance: Instance) -> None:
    """Readers never see half a file."""
    write_whole(instance_file(data_dir), msgspec.json.encode(instance))


def read_last_instance(data_dir: Path) -> Instance:
    """The running instance, or the last one if it was killed. Raises NotRunning when there is none."""
    try:
        return msgspec.json.decode(instance_file(data_dir).read_bytes(), type=Instance)
    except (OSError, msgspec.DecodeError):
        raise NotRunning(data_dir) from None


def read_instance(data_dir: Path) -> Instance:
    """Raises NotRunning when there is no instance, or when its `nearline up` has ended."""
    instance = read_last_instance(data_dir)
    if not _is_locked(data_dir):
        raise NotRunning(data_dir)
    return instance


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Holds the folder's lock, so that only one `nearline up` runs on it. The kernel releases the lock when the process
    ends, however it ends; a pid in a file could belong to another process by then. Raises AlreadyRuns."""
    with _lock_file(data_dir).open("w") as file:
        if not _take_in_time(file, fcntl.LOCK_EX):
            raise AlreadyRuns(data_dir, "nearline run" if _take(file, fcntl.LOCK_SH) else "another nearline up")
        yield


@contextmanager
def shared(data_dir: Path, names: Sequence[str]) -> Iterator[None]:
    """Keeps `nearline up` from the folder, and any other `nearline run` for one of these names. Raises AlreadyRuns."""
    runs_folder(data_dir).mkdir(exist_ok=True)
    with ExitStack() as stack:
        if not _take_in_time(stack.enter_context(_lock_file(data_dir).open("a")), fcntl.LOCK_SH):
            raise AlreadyRuns(data_dir, "nearline up")
        for name in names:
            file = runs_folder(data_dir) / f"{name}.lock"
            if not _take_in_time(stack.enter_context(file.open("a")), fcntl.LOCK_EX):
                raise AlreadyRuns(data_dir, f"another nearline run for {name}")
        yield


def runs_folder(data_dir: Path) -> Path:
    """Holds what each `nearline run` on this data folder keeps for itself."""
    return data_dir / "runs"


def _take_in_time(file: IO[str], kind: int) -> bool:
    deadline = time.monotonic() + _OTHERS_LOOK_S
    while not _take(file, kind):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def _is_locked(data_dir: Path) -> bool:
    try:
        with _lock_file(data_dir).open() as file:
            return not _take(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # another account made the file, and wrote `instance.json` too


def _take(file: IO[str], kind: int) -> bool:
    """True if this process has the lock now. It keeps it until the file is closed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "lock"
