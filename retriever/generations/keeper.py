"""Opens the generations that are to be open, sees when they are whole, and closes the others. In a thread of its own,
so that neither a question nor the follower of the log waits for it."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final, NamedTuple

import structlog

from retriever.generations.opening import Open
from retriever.generations.slots import Slot, Slots
from schemas.ids import Generation

_LOOK_S: Final = 0.1
"""While one is being opened or filled."""
_IDLE_S: Final = 1.0
_JOIN_S: Final = 1.0
_AGAIN_S: Final = 5.0
"""After it could not be opened."""

_log = structlog.get_logger(__name__)


class _Failure(NamedTuple):
    """Of a generation that could not be opened."""

    again_at_s: float
    reason: str
    """A traceback is logged when that changes."""


class Keeper:
    """`running` starts the thread, and at its end closes all that is open."""

    def __init__(self, slots: Slots, open_generation: Open, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._open = open_generation
        self._clock = clock
        self._stop = Event()
        self._news = Event()
        self._thread = Thread(target=self._run, name="generations-keeper", daemon=True)
        self._closing: list[tuple[Slot, Thread]] = []
        self._failures: dict[Generation, _Failure] = {}
        """Replaced at each change."""

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._news.set()
            self._slots.wake()
            # What is open is to be closed in time, also while a package is being fetched for another one.
            self._thread.join(_JOIN_S)
            self._close_all()

    def wake(self) -> None:
        """What is to be open has changed. Any thread may call it."""
        self._news.set()

    def could_not_open(self) -> list[Generation]:
        """Any thread may ask."""
        return list(self._failures)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            self._news.wait(_LOOK_S if self._look() else _IDLE_S)

    def _look(self) -> bool:
        """True while something is to be done soon."""
        for slot in self._slots.take_out():
            thread = Thread(target=self._close, args=(slot,), name=f"closing {slot.generation}", daemon=True)
            self._closing.append((slot, thread))
            thread.start()
        missing = self._slots.to_open()
        self._failures = {each: failure for each, failure in self._failures.items() if each in missing}
        for generation in missing:
            failure = self._failures.get(generation)
            if failure is None or self._clock() >= failure.again_at_s:
                self._try_to_open(generation)
        unfinished = [slot for slot in self._slots.all() if not slot.is_whole]
        for slot in unfinished:
            if not slot.opened.retriever.problems():
                _log.info("a generation is whole", generation=slot.generation)
                self._slots.mark_whole(slot)
        self._forget_closed()
        return bool(missing or unfinished)

    def _forget_closed(self) -> None:
        """Frees what they held, hundreds of MB. Their parts refer to each other, and the process looks for such cycles
        only rarely."""
        closing = [(slot, thread) for slot, thread in self._closing if thread.is_alive()]
        if len(closing) < len(self._closing):
            self._closing = closing
            gc.collect()

    def _try_to_open(self, generation: Generation) -> None:
        if self._stop.is_set():
            return
        try:
            opened = self._open(generation)
        except Exception as error:
            before = self._failures.get(generation)
            _log.error(
                "a generation cannot be opened",
                generation=generation,
                error=str(error),
                again_in_s=_AGAIN_S,
                exc_info=before is None or before.reason != str(error),
            )
            self._failures = {**self._failures, generation: _Failure(self._clock() + _AGAIN_S, str(error))}
            return
        if self._stop.is_set():
            opened.stop()
            opened.close()
            return
        _log.info("a generation is open, and is being filled", generation=generation)
        self._failures = {other: failure for other, failure in self._failures.items() if other != generation}
        self._slots.add(Slot(generation, opened))

    def _close(self, slot: Slot) -> None:
        """Runs in a thread of its own."""
        self._slots.wait_until_unasked(slot, or_if=self._stop.is_set)
        slot.opened.stop()
        slot.opened.close()
        slot.opened.remove_files()
        _log.info("a generation is closed", generation=slot.generation)
        self._slots.closed(slot.generation)

    def _close_all(self) -> None:
        """At the end of the process. All are told first, and then each is waited for beside the others."""
        slots = self._slots.all()
        for slot in slots:
            slot.opened.stop()
        threads = [Thread(target=slot.opened.close, name=f"closing {slot.generation}", daemon=True) for slot in slots]
        for thread in threads:
            thread.start()
        for thread in [*threads, *(thread for _, thread in self._closing)]:
            thread.join()
