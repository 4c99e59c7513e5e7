"""One process of an instance: `python -m nearline.up.process NAME DATA_DIR`, started by `nearline up`; with a third
argument, the file of its settings, by `nearline run`.

Its exit status is 0 when it was told to stop, 1 when it cannot go on, and START_AGAIN when the generation for which it
works has left its place. Unless it was told to stop `nearline up` starts it again.
"""

import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NoReturn

import structlog

from nearline import log
from nearline.errors import PlaceChanged
from nearline.settings.loading import instance_settings_file, read_settings
from nearline.settings.settings import Settings
from nearline.traces import traced
from nearline.up.build import ReportFailure, build
from nearline.up.failure_reports import StartTracker, write_failure_report
from nearline.up.names import SERVE
from nearline.up.residence import Run
from nearline.up.supervisor import START_AGAIN

_log = structlog.get_logger(__name__)

Build = Callable[[str, Settings, StartTracker, ReportFailure], Run]


def run_process(name: str, data_dir: Path, build: Build = build, settings_file: Path | None = None) -> int:
    """Runs one process to its end and returns its exit status. Call it once, from the main thread."""
    # `kill -USR1` writes what every thread is doing into the log.
    faulthandler.register(signal.SIGUSR1)
    # Loading a model takes seconds. Until the process is put together it has nothing to finish, so a signal ends it at
    # once.
    _on_signals(lambda: os._exit(0))
    # Importing the libraries makes objects that stay: a look for garbage among them took an eighth of a start's time.
    gc.disable()
    settings = read_settings(settings_file or instance_settings_file(data_dir))
    log.configure(name, settings.log_level)
    start_tracker = StartTracker()

    def report_end(error: Exception) -> None:
        write_failure_report(error, name, data_dir, at_start=start_tracker.is_starting)

    try:
        run = build(name, settings, start_tracker, report_end)
        collect_rarely()
        if name.partition("-")[0] == SERVE:
            share_quickly()
        stop = Event()
        _on_signals(stop.set)
        with traced(name, settings.traces):
            run(stop)
    except PlaceChanged as change:
        _log.info("leaving", why=str(change))
        return START_AGAIN
    except Exception as error:
        report_end(error)
        return 1
    _log.info("stopped")
    return 0


def collect_rarely() -> None:
    """Makes the garbage collector look for cycles less often. Everything that is loaded by now stays until the end, and
    the thousands of small objects of a batch form no cycles. With Python's default, a look after every 700 new objects,
    the collector took an eighth of the context stage's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def share_quickly() -> None:
    """Lets threads take turns every 0.5 ms: a thread that needs the GIL waits this long for a thread that computes.
    With the default of 5 ms a search would wait several times 5 ms while posts come into the hot tier."""
    sys.setswitchinterval(0.000_5)


def _on_signals(react: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: react())


def leave(status: int) -> NoReturn:
    """Ends the process at once. It does not wait for threads of libraries, which have nothing important left to do."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(run_process(sys.argv[1], Path(sys.argv[2]), settings_file=Path(sys.argv[3]) if sys.argv[3:] else None))
