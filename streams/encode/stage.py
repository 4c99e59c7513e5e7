"""The encode stage: contexts in, embeddings of one generation out, exactly once.

Three transactional loops share one encoder and one consumer group, each with a consumer of its own: two of posts, so
that one encodes while the other commits, and one of members. In one consumer a flood of members would stand in front of
every new post. The encoder takes their work in the order in which it comes, two turns at once: one is made ready while
the other is on the device.
"""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Event, Thread
from typing import Final, NamedTuple

from schemas import stages, topics
from schemas.ids import Generation, Kind
from streams.encode.metrics import EncodeMetrics
from streams.encode.records import STAGE, EncodeRecords, StageEncoder
from streams.errors import Stopped
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import EncodeSettings, KafkaSettings


class _Source(NamedTuple):
    """What one loop reads. `name` is its own in a worker, for good."""

    name: str
    kind: Kind
    topic: str


_SOURCES: Final = (
    _Source("post", "post", topics.POST_CONTEXTS),
    _Source("post-2", "post", topics.POST_CONTEXTS),
    _Source("member", "member", topics.MEMBER_CONTEXTS),
)
_TURNS: Final = 2


class EncodeStage:
    """One worker. `slot` names it among all workers for good: node id and number."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: EncodeSettings,
        encoder: StageEncoder,
        generation: Generation,
        slot: str,
        *,
        metrics: EncodeMetrics,
        heartbeat: Callable[[str], Heartbeat] = lambda _: NO_HEARTBEAT,
    ) -> None:
        """`heartbeat` makes the heartbeat of each loop, by the loop's name."""
        self._kafka = kafka
        self._settings = settings
        self._encoder = encoder
        self._generation = generation
        self._slot = slot
        self._metrics = metrics
        self._heartbeat = heartbeat

    def run(self, stop: Event) -> None:
        """Returns when `stop` is set, after the turn at the encoder that is under way. Raises what one of the loops
        could not go on with: then the process should leave and be started again."""
        leave = Event()
        with ThreadPoolExecutor(_TURNS, thread_name_prefix="turn") as device:
            workers = [_Worker(self._loop(source, device, leave), leave) for source in _SOURCES]
            for worker in workers:
                worker.start()
            try:
                while not leave.is_set() and not stop.wait(0.1):
                    pass
            finally:
                leave.set()
                for worker in workers:
                    worker.join()
        for worker in workers:
            if worker.failure is not None:
                raise worker.failure

    def _loop(self, source: _Source, device: Executor, leave: Event) -> TransactionalLoop:
        heartbeat = self._heartbeat(source.name)
        records = EncodeRecords(
            source.kind, self._generation, self._encoder, device, leave, metrics=self._metrics, beat=heartbeat.beat
        )
        return TransactionalLoop(
            self._kafka,
            records,
            group=stages.encode_reads(self._generation).group,
            topics=[source.topic],
            transactional_id=f"{STAGE}.{self._generation}.{source.name}.{self._slot}",
            # One turn is one transaction: what is encoded is searchable within about a second.
            batch_records=lambda: min(self._settings.batch_records, records.turn_contexts),
            interval_s=self._settings.interval_s,
            heartbeat=heartbeat,
        )


class _Worker(Thread):
    """One loop. When it cannot go on, all leave."""

    def __init__(self, loop: TransactionalLoop, leave: Event) -> None:
        super().__init__(name="encode")
        self.failure: BaseException | None = None
        self._loop = loop
        self._leave = leave

    def run(self) -> None:
        try:
            self._loop.run(self._leave)
        except Stopped:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self._leave.set()
