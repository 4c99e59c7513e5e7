"""Why a process ended: it writes the reason into `DATA/failures/NAME.json`, and `nearline up` reads it.

Owns the file, and the knowledge whether a process was still starting. The supervisor decides what is done about a
failure.
"""

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


class FailureReport(Struct, frozen=True):
    """The last failure of a process of this name."""

    pid: int
    sentence: str
    at_start: bool
    """The process failed before all its parts were at work, however long that took."""


class StartTracker:
    """Knows which parts of a process have started. Called from any thread."""

    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._started: set[str] = set()

    def started_callback(self, part: str) -> Callable[[], None]:
        """Expects this part to start. Returns the function that the part calls when it is at work, once or more
        often."""
        self._expected.add(part)
        return lambda: self._started.add(part)

    @property
    def is_starting(self) -> bool:
        """True until every expected part is at work; also while no part is expected yet."""
        return not self._expected or self._started != self._expected


def failure_reports_folder(data_dir: Path) -> Path:
    return data_dir / "failures"


def write_failure_report(error: Exception, process: str, data_dir: Path, *, at_start: bool) -> None:
    """Logs the error and writes it for `nearline up`. Called in the process that ends because of it.

    An error of our packages is logged as its sentence. Any other error is logged with its traceback, unless the
    process ended for the same reason the last time too.
    """
    sentence = _sentence(error)
    last = _read(data_dir, process)
    is_new = last is None or last.sentence != sentence
    log.error("cannot go on", error=str(error), exc_info=error if is_new and not is_ours(error) else None)
    with suppress(OSError):  # the data folder is being taken away, or the disk is full
        _write(data_dir, process, FailureReport(os.getpid(), sentence, at_start))


def _sentence(error: Exception) -> str:
    text, name = " ".join(str(error).split()), type(error).__name__
    # The texts of aiokafka's errors already begin with the name of the error.
    return text if is_ours(error) or text.startswith(name) else f"{name}: {text}"


def failure_report_of(data_dir: Path, process: str) -> Callable[[int], FailureReport | None]:
    """Returns a function that takes the pid of an ended process, and returns its report or None if it has left none."""

    def read_report(pid: int) -> FailureReport | None:
        last = _read(data_dir, process)
        return last if last is not None and last.pid == pid else None

    return read_report


def _write(data_dir: Path, process: str, report: FailureReport) -> None:
    file = _file(data_dir, process)
    file.parent.mkdir(exist_ok=True)
    write_whole(file, msgspec.json.encode(report))


def _read(data_dir: Path, process: str) -> FailureReport | None:
    try:
        return msgspec.json.decode(_file(data_dir, process).read_bytes(), type=FailureReport)
    except (OSError, msgspec.DecodeError):
        return None


def _file(data_dir: Path, process: str) -> Path:
    return failure_reports_folder(data_dir) / f"{process}.json"
