"""One look at an instance: the status that `nearline status` prints, the log of the generations, and the monitor's
figures. Looks again and again in a thread, so that a part that is silent holds up neither keys nor the screen.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPException
from threading import Event, Thread
from typing import Final, NamedTuple

from nearline.ask.connections import Connections
from nearline.ask.status import read_status
from nearline.ask.status_sources import sources_of_command
from nearline.errors import NotRunning, is_ours
from nearline.settings.instance import read_instance
from nearline.settings.settings import Settings
from nearline.top.series import NO_RATES, Rates, Series, rates_between, read_series
from schemas.api import StatusResponse
from schemas.generations import GenerationRecord
from streams.errors import StreamsError
from streams.generations.progress import Progress, read_progress
from streams.generations.state import Generations
from streams.kafka.offsets import OffsetReader

EVERY_S: Final = 2.0
_MONITOR_S: Final = 1.0


class LivingGeneration(NamedTuple):
    record: GenerationRecord
    progress: Progress | None
    """None if it is complete, or unknown."""


class Look(NamedTuple):
    """`at`: seconds since 1970. `problem`: why there is no status. `series` is None where no monitor answers."""

    at: float
    status: StatusResponse | None = None
    problem: str = ""
    generations: Sequence[LivingGeneration] = ()
    series: Series | None = None
    rates: Rates = NO_RATES


def take_look(settings: Settings, before: Look | None) -> Look:
    """Takes some seconds at most. `before` is the look before this one, from which rates follow."""
    connections = Connections(settings, lambda: read_instance(settings.data_dir))
    try:
        sources = sources_of_command(connections)
        log = _ReadLog(sources.generations)
        status = read_status(sources._replace(generations=log.read))
        series = _series(connections)
        generations = _generations(connections, log.newest)
    except Exception as error:  # whatever goes wrong, the screen stays, and says so until it is over
        return Look(time.time(), problem=str(error) if is_ours(error) else f"{type(error).__name__}: {error}")
    rates = NO_RATES
    if before is not None and before.series is not None and series is not None:
        rates = rates_between(before.series, series)
    return Look(time.time(), status, "", generations, series, rates)


def _series(connections: Connections) -> Series | None:
    """None where the monitor is silent, which the status says, or where there is none."""
    try:
        monitor = connections.monitor
        return None if monitor is None else read_series(monitor, time.monotonic(), _MONITOR_S)
    except (NotRunning, OSError, HTTPException, ValueError):
        return None


class _ReadLog:
    """The log of the generations as a status reads it, once a look. The status leaves it alone if it takes long."""

    def __init__(self, read: Callable[[], Generations]) -> None:
        self._read = read
        self.newest = Generations()
        """Empty while it was not read."""

    def read(self) -> Generations:
        self.newest = self._read()
        return self.newest


def _generations(connections: Connections, log: Generations) -> list[LivingGeneration]:
    """Empty where the broker is away, which the status says."""
    if not log.live:
        return []
    try:
        with closing(OffsetReader(connections.kafka)) as reader:
            now = datetime.now(UTC)
            return [LivingGeneration(record, read_progress(reader, record, now)) for record in log.live]
    except StreamsError:
        return []


class Looking:
    """Looks in a thread from `start` on. Any thread may read `newest`; `on_look` is called in the thread."""

    def __init__(self, look: Callable[[Look | None], Look], on_look: Callable[[], None], every_s: float) -> None:
        self.newest: Look | None = None
        self._look = look
        self._on_look = on_look
        self._every_s = every_s
        self._stop = Event()
        self._thread = Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait: what is asked of a silent part may take seconds, and nobody needs the answer."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.newest = self._look(self.newest)
            self._on_look()
            self._stop.wait(self._every_s)
