"""Puts the context stage together, for one version of the contexts. As in `build.py`, stages are imported inside.

Follows the log of the generations: it says which version sends dead letters, and where a rebuilt one begins to move
records that are in a wrong partition.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Final

import structlog

from nearline.settings.settings import Settings
from nearline.up.live_first import looking_for_live_records, oldest_waiting
from nearline.up.residence import Run
from schemas.ids import ContextVersion
from schemas.stages import contexts_reads, live_reads
from schemas.topics import FIRST_CONTEXTS
from streams.errors import StreamsError
from streams.generations.follower import GenerationsFollower
from streams.generations.state import Generations
from streams.kafka.heartbeat import Heartbeat
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_STANDS_STILL_S: Final = 30.0
"""A stage that works is done with its oldest record long before."""

log = structlog.get_logger(__name__)


def build_contexts(settings: Settings, name: str, slot: str, version: ContextVersion, heartbeat: Heartbeat) -> Run:
    """A rebuilt version waits until the log says where its building began."""
    from nearline.up.metrics import process_registry, served_metrics
    from streams.contexts.metrics import ContextMetrics
    from streams.contexts.role import Role
    from streams.contexts.stage import ContextStage

    registry = process_registry()
    follower = GenerationsFollower(settings.kafka)
    # Nobody waits for its end, which may take long where the broker is away.
    follower.start()
    moved_before = {}
    if version != FIRST_CONTEXTS:
        state = follower.wait_for(lambda state: version in state.contexts and state.contexts[version].is_prepared)
        assert state is not None, "nobody closes the follower"
        goal = state.contexts[version].goal
        moved_before = {Place(topic, at): end for topic, ends in goal.items() for at, end in ends.items()}

    def sends_dead_letters() -> bool:
        return is_read_by_serving(follower.current(), version)

    pace = LiveContextsFirst(settings.kafka, follower.current, version, settings.generations.live_bound_s)
    stage = ContextStage(
        settings.kafka,
        settings.contexts,
        settings.rules,
        settings.data_dir,
        slot,
        heartbeat=heartbeat,
        role=Role(version, moved_before, sends_dead_letters),
        pace=pace,
        metrics=ContextMetrics(registry),
    )

    def run(stop: Event) -> None:
        try:
            with served_metrics(name, settings.data_dir, settings.contexts.metrics_host, registry), pace.running():
                stage.run(stop)
        finally:
            follower.stop()

    return run


def is_read_by_serving(state: Generations | None, version: ContextVersion) -> bool:
    """Before anything was founded the first version counts as the one that is read."""
    if state is None or state.serving is None:
        return version == FIRST_CONTEXTS
    return state.serving.contexts == version


class LiveContextsFirst:
    """A `Pace` that holds back a version of the contexts while it is being rebuilt, and the serving generation's oldest
    record waits for longer than a bound. Other versions are never held back."""

    def __init__(
        self, kafka: KafkaSettings, state: Callable[[], Generations | None], version: ContextVersion, bound_s: float
    ) -> None:
        """`state`: the newest state of the log; None if it was not read yet."""
        self._kafka = kafka
        self._state = state
        self._version = version
        self._bound_s = bound_s
        # Written by the thread that looks.
        self._stands_back = False
        self._oldest_ms: int | None = None
        self._oldest_since_ms = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        if not self._is_building:
            yield
            return
        with looking_for_live_records(self._kafka, self.look):
            yield

    def may_read(self) -> bool:
        return not (self._stands_back and self._is_building)

    def has_read(self, num_records: int) -> None:
        """Only the live records count."""

    @property
    def _is_building(self) -> bool:
        state = self._state()
        record = None if state is None else state.contexts.get(self._version)
        return record is not None and record.state == "building"

    def look(self, reader: OffsetReader) -> None:
        """Asks the broker once how long live records wait."""
        state = self._state()
        serving = None if state is None else state.serving
        if serving is None or not self._is_building:
            return
        reads = [contexts_reads(serving.contexts), *live_reads(serving.id, serving.contexts)]
        try:
            oldest = oldest_waiting(reader, reads)
        except StreamsError as error:
            # The stage itself waits out an outage of the broker.
            log.debug("how long live records wait is not known", error=str(error))
            return
        if oldest.is_certain or oldest.at_ms is not None:
            self.take(oldest.at_ms, time.time() * 1000)

    def take(self, oldest_ms: int | None, now_ms: float) -> None:
        """`oldest_ms`: the timestamp of the oldest record that waits; None if none does. If the same one waits for too
        long, the serving stages stand still, perhaps because their rows are damaged: then nobody is helped by waiting,
        and a rebuild may be the mend."""
        if oldest_ms != self._oldest_ms:
            self._oldest_ms, self._oldest_since_ms = oldest_ms, now_ms
        age_s = 0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000
        stands_still = now_ms - self._oldest_since_ms > _STANDS_STILL_S * 1000
        stands_back = age_s > self._bound_s and not stands_still
        if stands_back != self._stands_back:
            self._stands_back = stands_back
            log.info("stands back for live records" if stands_back else "goes on", oldest_age_s=round(age_s, 1))
