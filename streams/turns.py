"""Two users of one device, in the order in which they ask."""

from threading import Condition
from types import TracebackType
from typing import Self


class Turns:
    """A lock that is given in the order of asking: nobody takes it twice while another waits, as a plain lock may."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._next = 0
        self._now = 0

    def __enter__(self) -> Self:
        with self._changed:
            ticket = self._next
            self._next += 1
            self._changed.wait_for(lambda: self._now == ticket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._now += 1
            self._changed.notify_all()
