"""Asks the tiers and the processes, again and again, and keeps what they said: for the page, and for its history.

Whoever looks at the page never waits for them. One thread works; any thread may read.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from nearline.ask.status import TiersSeen
from nearline.monitor.monitor import Monitor
from nearline.page.counters import Counters, Scraped
from nearline.page.history import History
from nearline.page.overview import Collected, stages_shown
from schemas.ids import Generation
from streams.errors import StreamsError
from streams.generations.progress import Progress

Progresses = Mapping[Generation, Progress | None]


class Sources(NamedTuple):
    """Each may block for seconds. Only `progresses` may raise, StreamsError."""

    tiers: Callable[[], TiersSeen]
    scraped: Callable[[], Scraped]
    progresses: Callable[[], Progresses]


class Collector:
    def __init__(
        self,
        monitor: Monitor,
        sources: Sources,
        within_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`within_s`: an event is fresh if it took no longer. `clock` is the monitor's."""
        self._monitor, self._sources = monitor, sources
        self._clock, self._wall = clock, wall
        self._counters = Counters(within_s)
        self.history = History()
        self.collected: Collected | None = None
        """None at first. Replaced as a whole."""

    def look(self) -> None:
        """Takes a few seconds at most, if something does not answer."""
        tiers, (progresses, problems) = self._sources.tiers(), self._progresses()
        scraped, at_s = self._sources.scraped(), self._clock()
        counted = self._counters.look(at_s, scraped)
        self.collected = Collected(at_s, tiers, counted.per_s, progresses, [*tiers.problems, *problems])
        self.history.add(self._wall(), self._values(tiers, counted.per_s), counted.fresh)

    def _progresses(self) -> tuple[Progresses, list[str]]:
        try:
            return self._sources.progresses(), []
        except StreamsError as error:
            before = self.collected
            return {} if before is None else before.progresses, [f"building: {error}"]

    def _values(self, tiers: TiersSeen, per_s: Mapping[str, float]) -> dict[str, float]:
        """By the names that the page draws."""
        values = {f"{name}_per_s": value for name, value in per_s.items()}
        for name, value in (("freshness_p50_s", tiers.freshness.p50), ("freshness_p99_s", tiers.freshness.p99)):
            if value is not None:
                values[name] = value
        for stage in stages_shown(self._monitor.figures, self._monitor.report):
            if stage.lag is not None:
                name = f"oldest_age_s {stage.stage}" + ("" if stage.of is None else f" of {stage.of}")
                values[name] = stage.oldest_age_s or 0.0
        return values
