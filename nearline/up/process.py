"""One process of an instance: `python -m nearline.up.process NAME DATA_DIR`, started by `nearline up`.

Leaves with status 0 when it is told to stop, with 1 when it cannot go on; then it is started again.
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
from nearline.settings.settings import Settings, read_of_parent
from nearline.up.build import SERVE, Report, Run, build
from nearline.up.failures import Beginnings, report

_log = structlog.get_logger(__name__)


Build = Callable[[str, Settings, Beginnings, Report], Run]


def run_process(name: str, data_dir: Path, build: Build = build) -> int:
    """Runs one process to its end and returns its exit status. Call it once, from the main thread."""
    # `kill -USR1` writes what every thread is doing into the log.
    faulthandler.register(signal.SIGUSR1)
    # While it is put together it has done nothing yet, and a model takes seconds to load: it need not be waited for.
    _on_signals(lambda: os._exit(0))
    settings = read_of_parent(data_dir)
    log.configure(name, settings.log_level)
    beginnings = Beginnings()

    def report_end(error: Exception) -> None:
        report(error, name, data_dir, at_start=beginnings.at_start)

    try:
        run = build(name, settings, beginnings, report_end)
        collect_rarely()
        if name == SERVE:
            share_quickly()
        stop = Event()
        _on_signals(stop.set)
        run(stop)
    except Exception as error:
        report_end(error)
        return 1
    _log.info("stopped")
    return 0


def collect_rarely() -> None:
    """What is loaded by now stays, and batches of thousands of small objects come and go without making cycles: looking
    for some after every 700 took an eighth of the context stage's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def share_quickly() -> None:
    """A thread that needs Python's lock waits so long for another one that computes. Of the default, 5 ms, a search
    would wait several while posts come into the hot tier."""
    sys.setswitchinterval(0.000_5)


def _on_signals(react: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: react())


def leave(status: int) -> NoReturn:
    """Threads of libraries must not hold up the end: all that matters is done."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(run_process(sys.argv[1], Path(sys.argv[2])))
