"""Work that is done again and again beside a stage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import structlog

_JOIN_S: Final = 1.0

log = structlog.get_logger(__name__)


@contextmanager
def repeating(what: str, every_s: float, work: Callable[[], None]) -> Iterator[None]:
    """In a thread of its own, the first time at once. What it raises is logged, and it is done again. Work that is
    under way at the end is waited for a little."""
    stop = Event()

    def run() -> None:
        while True:
            try:
                work()
            except Exception as error:
                log.warning("it will be tried again", what=what, error=str(error), again_in_s=every_s)
            if stop.wait(every_s):
                return

    thread = Thread(target=run, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_S)
