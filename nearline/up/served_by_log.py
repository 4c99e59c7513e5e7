"""Serves the generations that the log names: follows it, opens and closes what it says, and ends a canary that leaves
its bounds.

Each process of a retriever does this for itself, and learns all of it anew at its start. If the broker is away then, it
goes by what was in the log last: it can still answer from the cold tier. Knows neither what an open generation consists
of nor how a question is answered.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from retriever.generations.canary_watch import CanaryBounds
from retriever.generations.opening import OpenGeneration
from retriever.generations.roles import Roles
from retriever.generations.served import ServedGenerations
from schemas.generations import GenerationRecord
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.follower import GenerationsFollower
from streams.generations.last_state import remember, remembered
from streams.generations.log import change_generations
from streams.generations.state import Generations
from streams.kafka.periodic import repeating
from streams.settings import GenerationsSettings, KafkaSettings

_LOOK_EVERY_S: Final = 1.0
_BROKER_AWAY_AFTER_S: Final = 5.0
"""So long after the start the log counts as out of reach, if nothing was heard of it."""

log = structlog.get_logger(__name__)

OpenRecord = Callable[[Generations, GenerationRecord], OpenGeneration]
"""As `Open`, with what the log says: of all generations, and of this one."""


class ServedByLog:
    """`served` answers. Nothing is open outside of `running`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        bounds: GenerationsSettings,
        open_record: OpenRecord,
        last_state_file: Path,
        broker_away_after_s: float = _BROKER_AWAY_AFTER_S,
    ) -> None:
        """What the log says is also kept in `last_state_file`, which several processes may share. Its folder must
        exist."""
        self._kafka = kafka
        self._open_record = open_record
        self._last_state_file = last_state_file
        self._broker_away_after_s = broker_away_after_s
        self._remember_from_s = math.inf
        """From then on the last state counts, unless the log was read."""
        self._kept: Generations | None = None
        """What the file holds, if this process has written or read it."""
        self._follower = GenerationsFollower(kafka, lambda _: self._take())
        self._taking = Lock()
        self._lives: dict[Generation, tuple[Generation, datetime | None]] = {}
        """In which life each generation was opened last. Changed by the thread that opens."""
        self.served = ServedGenerations(
            self._open,
            CanaryBounds(bounds.canary_errors, bounds.canary_p99_ratio, bounds.canary_window_s, bounds.canary_recall),
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Leave the block when nobody asks any more."""
        self._remember_from_s = time.monotonic() + self._broker_away_after_s
        # The follower ends last, because it may wait for the broker, and snapshots are to be written in time.
        with (
            self._follower.running(),
            self.served.running(),
            repeating("looking after the generations", _LOOK_EVERY_S, self._look),
        ):
            yield

    def _open(self, generation: Generation) -> OpenGeneration:
        state = self._state()
        assert state is not None, "what is to be opened was named by a state"
        record = state.records[generation]
        # Remembered first: what is opened in vain is not open, so its life does not count.
        self._lives = {**self._lives, generation: record.life}
        return self._open_record(state, record)

    def _take(self) -> None:
        """The newest state, whoever calls this. Returns at once."""
        with self._taking:
            state = self._state()
            roles = None if state is None else roles_of(state, self._is_outdated)
            if roles is not None:
                self.served.take(roles)

    def _is_outdated(self, record: GenerationRecord) -> bool:
        """Whether it is open as it was before it was retired and built again, while this process heard nothing of the
        log. It is closed first, and opened again when that is done."""
        return self._lives.get(record.id, record.life) != record.life and self.served.is_open(record.id)

    def _state(self) -> Generations | None:
        """What the log says, or said last if it could not be read since the start. None if nothing is known (yet)."""
        current = self._follower.current()
        if current is not None or time.monotonic() < self._remember_from_s:
            return current
        if self._kept is None:
            self._kept = remembered(self._last_state_file)
            if self._kept is not None:
                log.warning("the log of the generations is out of reach; what it said last counts until it is read")
        return self._kept

    def _look(self) -> None:
        self._take()
        state = self._follower.current()
        if state is not None:
            self._remember(state)
            self._end_canary_if_bad(state)

    def _remember(self, state: Generations) -> None:
        if state == self._kept:
            return
        try:
            remember(self._last_state_file, state)
        except OSError as error:
            log.warning("the state of the generations cannot be kept in a file", error=str(error))
        else:
            self._kept = state

    def _end_canary_if_bad(self, state: Generations) -> None:
        """Several processes may do it, and any of them again and again: the canary ends once."""
        verdict = self.served.verdict()
        if verdict is None or state.pointer is None or state.pointer.canary != verdict.trial.canary:
            return
        canary, by = verdict.trial.canary, acts.acting(acts.this_process(), verdict.reason)
        log.warning("the canary has left its bounds and ends", generation=canary.generation, reason=verdict.reason)
        change_generations(self._kafka, lambda newest: acts.end_canary(newest, canary, by))


def roles_of(state: Generations, is_outdated: Callable[[GenerationRecord], bool] = lambda _: False) -> Roles | None:
    """None if nothing was ever founded. One that is being built is not complete, so it is not opened. Nor is one that
    `is_outdated` says of, unless it serves."""
    if state.serving is None or state.pointer is None:
        return None
    others = {
        record.id: record.state
        for record in state.live
        if record.state in ("ready", "kept") and not is_outdated(record)
    }
    canary = state.pointer.canary
    return Roles(state.serving.id, canary if canary is not None and canary.generation in others else None, others)
