"""Writes `post-vectors` while its generation serves, and waits while it does not. One thread of an encode process.

Live posts, and after a promotion all posts, take the same way: the loop reads the generation's embeddings, from their
start in each reign. That is quick, because nothing is encoded.
"""

import time
from collections.abc import Callable, Collection
from threading import Event
from typing import Final, NamedTuple

import structlog

from schemas.topics import POST_VECTOR_SPECS, POST_VECTORS, POST_VECTORS_GROUP
from streams.encode.metrics import EncodeMetrics
from streams.encode.post_vectors.progress import ReignProgress
from streams.encode.post_vectors.records import PostVectorRecords
from streams.encode.post_vectors.reign import Reign
from streams.encode.post_vectors.switch import Switch
from streams.errors import KafkaRefused
from streams.kafka.heartbeat import Heartbeat
from streams.kafka.periodic import repeating
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import KafkaSettings

_IDLE_S: Final = 0.2
_AGAIN_S: Final = 10.0
"""After a refusal, which somebody has to mend."""
_SWITCH_EVERY_S: Final = 1.0
_BATCH_RECORDS: Final = 2_000
_INTERVAL_S: Final = 0.2

log = structlog.get_logger(__name__)


class PostVectorsOf(NamedTuple):
    """What an encode stage has to know to write post vectors. `reign` is called again and again: None while the
    generation does not serve. `newest_reign` asks the log of the generations now."""

    dimension: int
    is_text: bool
    """Whether a post's prompt is its text alone."""
    reign: Callable[[], Reign | None]
    newest_reign: Callable[[], Reign | None]


class PostVectorsWriter:
    """`slot` is the stage's node id and number."""

    def __init__(
        self, kafka: KafkaSettings, post_vectors: PostVectorsOf, slot: str, metrics: EncodeMetrics, heartbeat: Heartbeat
    ) -> None:
        self._kafka = kafka
        self._post_vectors = post_vectors
        self._slot = slot
        self._metrics = metrics
        self._heartbeat = _OwnsNothing(heartbeat)

    def run(self, stop: Event) -> None:
        """Returns soon after `stop` is set. Raises StreamsError; but what the broker refuses is tried again, because it
        concerns only these topics, and the stage's other loops go on without them."""
        self._heartbeat.start()
        self._heartbeat.owns(())
        while not stop.is_set():
            reign = self._post_vectors.reign()
            if reign is None:
                self._heartbeat.loop_turned()
                stop.wait(_IDLE_S)
                continue
            try:
                self._write(reign, stop)
            except KafkaRefused as error:
                log.error("the post vectors are not written", cause=str(error), again_in_s=_AGAIN_S)
                self._metrics.post_vectors.refused()
                self._pause(stop)

    def _pause(self, stop: Event) -> None:
        until_s = time.monotonic() + _AGAIN_S
        while time.monotonic() < until_s and not stop.wait(_IDLE_S):
            self._heartbeat.loop_turned()

    def _write(self, reign: Reign, stop: Event) -> None:
        self._heartbeat.still_working()
        ensure_topics(self._kafka, POST_VECTOR_SPECS)
        log.info("writes the post vectors", generation=reign.generation, dimension=reign.dimension)

        def still_serves() -> bool:
            return self._post_vectors.newest_reign() == reign

        switch = Switch(self._kafka, reign, still_serves)
        with repeating("looking whether all post vectors are written", _SWITCH_EVERY_S, switch.write_if_complete):
            self._loop(reign, still_serves).run(_EndOfReign(stop, lambda: self._post_vectors.reign() != reign))

    def _loop(self, reign: Reign, still_serves: Callable[[], bool]) -> TransactionalLoop:
        return TransactionalLoop(
            self._kafka,
            PostVectorRecords(reign, self._metrics.post_vectors),
            group=POST_VECTORS_GROUP,
            topics=[POST_VECTORS],
            transactional_id=f"{POST_VECTORS}.{reign.generation}.{self._slot}",
            batch_records=lambda: _BATCH_RECORDS,
            interval_s=_INTERVAL_S,
            heartbeat=self._heartbeat,
            on_transaction=self._metrics.transactions.took,
            progress=ReignProgress(self._kafka, reign, still_serves),
        )


class _EndOfReign(Event):
    """Set when `stop` is, and when the reign is over."""

    def __init__(self, stop: Event, is_over: Callable[[], bool]) -> None:
        super().__init__()
        self._stop = stop
        self._is_over = is_over

    def is_set(self) -> bool:
        return self._stop.is_set() or self._is_over()


class _OwnsNothing(Heartbeat):
    """The heartbeat of a loop whose partitions are not of the process's own group: the supervisor would look in that
    group for what it commits. It still sees a loop that does not come round."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def start(self) -> None:
        self._heartbeat.start()

    def loop_turned(self) -> None:
        self._heartbeat.loop_turned()

    def still_working(self) -> None:
        self._heartbeat.still_working()

    def owns(self, places: Collection[Place]) -> None:
        self._heartbeat.owns(())
