"""Repeats some work in a thread beside a stage. Knows nothing of the work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import structlog

_JOIN_S: Final = 1.0

log = structlog.get_logger(__name__)


@contextmanager
def repeating(what: str, every_s: float, work: Callable[[], None]) -> Iterator[None]:
    """Calls `work` at once and then every `every_s` seconds, in a thread of its own, until the block is left. An error
    is logged, and the work is repeated as usual. At the end, work that is under way has a second to finish."""
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
