"""Why a process could not go on: said by itself in `DATA/failures/NAME.json`, read by `nearline up`."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from nearline.errors import is_ours
from schemas.files import write_whole

log = structlog.get_logger(__name__)


class Failure(Struct, frozen=True):
    """The last one of a process of this name."""

    pid: int
    sentence: str
    at_start: bool
    """Before it was at work, however long that took."""


class Beginnings:
    """The parts of a process that are still to begin, each named when it is made. Called from any thread."""

    def __init__(self) -> None:
        self._awaited: set[str] = set()
        self._begun: set[str] = set()

    def expect(self, part: str) -> Callable[[], None]:
        """The part calls what it gets when it is at work, once or more often."""
        self._awaited.add(part)
        return lambda: self._begun.add(part)

    @property
    def at_start(self) -> bool:
        """Some part, or all, are not at work yet."""
        return not self._awaited or self._begun != self._awaited


def failures_folder(data_dir: Path) -> Path:
    return data_dir / "failures"


def report(error: Exception, process: str, data_dir: Path, *, at_start: bool) -> None:
    """Into the log, and to `nearline up`: call it in the process that ends with it.

    What our packages raise says all in its sentence; for anything else the place matters, the first time.
    """
    ours = is_ours(error)
    sentence = _sentence(error)
    last = _read(data_dir, process)
    is_new = last is None or last.sentence != sentence
    log.error("cannot go on", error=str(error), exc_info=error if is_new and not ours else None)
    with suppress(OSError):  # the data folder is being taken away, or the disk is full
        _write(data_dir, process, Failure(os.getpid(), sentence, at_start))


def _sentence(error: Exception) -> str:
    text, name = " ".join(str(error).split()), type(error).__name__
    # Those of aiokafka begin with their name.
    return text if is_ours(error) or text.startswith(name) else f"{name}: {text}"


def failure_of(data_dir: Path, process: str) -> Callable[[int], Failure | None]:
    """Asked with a pid of this process that has ended: None where it said nothing."""

    def failure(pid: int) -> Failure | None:
        last = _read(data_dir, process)
        return last if last is not None and last.pid == pid else None

    return failure


def _write(data_dir: Path, process: str, failure: Failure) -> None:
    file = _file(data_dir, process)
    file.parent.mkdir(exist_ok=True)
    write_whole(file, msgspec.json.encode(failure))


def _read(data_dir: Path, process: str) -> Failure | None:
    try:
        return msgspec.json.decode(_file(data_dir, process).read_bytes(), type=Failure)
    except (OSError, msgspec.DecodeError):
        return None


def _file(data_dir: Path, process: str) -> Path:
    return failures_folder(data_dir) / f"{process}.json"
