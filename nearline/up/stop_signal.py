"""SIGTERM and SIGINT, as a request to stop that interrupts a start and is only looked at by a loop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """A signal came while something could be interrupted."""


class StopSignal:
    """For the main thread, which gets all signals."""

    def __init__(self) -> None:
        self.is_set = False
        self._interrupts = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within the block a signal raises StopRequested, whatever the block waits for."""
        self._interrupts = True
        try:
            if self.is_set:
                raise StopRequested
            yield
        finally:
            self._interrupts = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """For a part of such a block that must be done to its end: the signal takes effect after it."""
        self._interrupts = False
        yield
        self._interrupts = True
        if self.is_set:
            raise StopRequested

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self.is_set = True
        if self._interrupts:
            self._interrupts = False
            raise StopRequested
