"""The generation that lives at a place, for a process that works for whichever does.

Such a process learns from the log of the generations at its start for which generation it works, and leaves as soon as
that one does not live there any more. `nearline up` then starts it again, if another one does.
"""

from collections.abc import Callable
from threading import Event, Lock
from typing import NamedTuple

import structlog

from encoders.package.model_package import ModelPackage
from nearline.errors import PlaceChanged
from nearline.generations.packages import package_here
from nearline.settings.settings import Settings
from schemas.generations import GenerationRecord, PlaceName
from streams.generations.follower import GenerationsFollower
from streams.generations.state import Generations

log = structlog.get_logger(__name__)

Run = Callable[[Event], None]
"""Runs a process until the event is set."""


class Resident(NamedTuple):
    """A generation that lives at a place."""

    record: GenerationRecord
    """As it was when the process began."""
    package: ModelPackage
    state: Callable[[], Generations]
    """The newest state of the log."""

    @property
    def newest(self) -> GenerationRecord:
        """What the log says of the generation now."""
        return self.state().records.get(self.record.id, self.record)


def at_place(settings: Settings, place: PlaceName, build: Callable[[Resident], Run]) -> Run:
    """Waits until a generation lives at the place, and puts together what works for it.

    The `Run` that it returns raises PlaceChanged when that generation has left. Raises what `package_here` raises."""
    watch = _Watch(place)
    follower = GenerationsFollower(settings.kafka, watch.take)
    # It follows until the run has ended: also while a large model is loaded the generation may leave. Nobody waits for
    # its end, which may take long where the broker is away.
    follower.start()
    try:
        state = follower.wait_for(lambda state: state.at(place) is not None)
        assert state is not None, "nobody closes the follower"
        record = state.at(place)
        assert record is not None
        watch.expect(record)
        log.info("works for a generation", generation=record.id, place=place, state=record.state)
        run = build(Resident(record, package_here(record, settings), lambda: follower.current() or state))
    except BaseException:
        follower.stop()
        raise

    def run_while_it_lives_there(stop: Event) -> None:
        try:
            watch.stop_when_it_has_left(stop)
            run(stop)
        finally:
            follower.stop()
        if watch.has_left:
            raise PlaceChanged(place, record.id)

    return run_while_it_lives_there


class _Watch:
    """Sets an event when the expected generation does not live at the place any more. Any thread may call it."""

    def __init__(self, place: PlaceName) -> None:
        self.has_left = False
        self._place = place
        self._lock = Lock()
        self._newest: Generations | None = None
        self._expected: GenerationRecord | None = None
        self._stop: Event | None = None

    def take(self, state: Generations) -> None:
        with self._lock:
            self._newest = state
            self._look()

    def expect(self, record: GenerationRecord) -> None:
        with self._lock:
            self._expected = record
            self._look()

    def stop_when_it_has_left(self, stop: Event) -> None:
        with self._lock:
            self._stop = stop
            self._look()

    def _look(self) -> None:
        if self._newest is None or self._expected is None:
            return
        there = self._newest.at(self._place)
        self.has_left |= there is None or there.life != self._expected.life
        if self.has_left and self._stop is not None:
            self._stop.set()
