"""The running instance of a data folder: one small JSON file that `nearline up` writes and every command reads."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from nearline.errors import NotRunning


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
    target = instance_file(data_dir)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(msgspec.json.encode(instance))
    temporary.replace(target)


def read_last_instance(data_dir: Path) -> Instance:
    """Also of one that was killed. Raises NotRunning when there is none."""
    try:
        return msgspec.json.decode(instance_file(data_dir).read_bytes(), type=Instance)
    except (OSError, msgspec.DecodeError):
        raise NotRunning(data_dir) from None


def read_instance(data_dir: Path) -> Instance:
    """Raises NotRunning when there is none, or when its supervisor is gone."""
    instance = read_last_instance(data_dir)
    try:
        os.kill(instance.supervisor_pid, 0)
    except ProcessLookupError:
        raise NotRunning(data_dir) from None
    except PermissionError:
        pass
    return instance
