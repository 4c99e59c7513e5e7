"""The encode stage: contexts in, embeddings of one generation out, exactly once. What an operator asks for is encoded
again, while there are no new contexts.

Three transactional loops share one encoder and one consumer group, and each has its own consumer. Two loops read posts:
one encodes while the other commits. The third reads members. If posts and members shared a consumer, a flood of members
would delay every new post. The encoder takes turns in the order in which the loops submit them, two at the same time:
one is tokenised while the other is on the device.

If the settings want it, a fourth loop writes the vectors of texts to `post-vectors`, while the generation serves.
"""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from threading import Event, Thread

from schemas import stages, topics
from schemas.ids import ContextVersion, Generation
from streams.encode.context_records import STAGE, ContextRecords, TextVectors
from streams.encode.live_first import LiveFirst
from streams.encode.metrics import EncodeMetrics
from streams.encode.post_vectors.writer import PostVectorsOf, PostVectorsWriter
from streams.encode.records import EncodeRecords
from streams.encode.replays import REPLAY_TURN_S, EncodeReplays
from streams.encode.sources import CONCURRENT_TURNS, SOURCES, Source
from streams.encode.turns import TURN_S, EncodeTurns, StageEncoder
from streams.errors import Stopped
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.lookup import RecordLookup
from streams.kafka.pace import FULL_PACE, Pace
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import EncodeSettings, KafkaSettings


class EncodeStage:
    """One worker. `slot` is its node id and number, which no other worker has and which outlives a restart."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: EncodeSettings,
        encoder: StageEncoder,
        generation: Generation,
        slot: str,
        *,
        metrics: EncodeMetrics,
        make_heartbeat: Callable[[str], Heartbeat] = lambda _: NO_HEARTBEAT,
        pace: Pace = FULL_PACE,
        contexts: ContextVersion = topics.FIRST_CONTEXTS,
        post_vectors: PostVectorsOf | None = None,
    ) -> None:
        """`contexts` is the version that the generation reads. `make_heartbeat` takes the name of a loop. The loops
        share the pace. `post_vectors`: None if nobody wants any."""
        self._kafka = kafka
        self._settings = settings
        self._encoder = encoder
        self._generation = generation
        self._slot = slot
        self._metrics = metrics
        self._make_heartbeat = make_heartbeat
        self._pace = pace
        self._contexts = contexts
        self._post_vectors = post_vectors

    def run(self, stop: Event) -> None:
        """Returns when `stop` is set, after the running turn of the encoder. Raises the error that ended one of the
        loops. Then the process should leave and be started again."""
        leave = Event()
        live_first = LiveFirst()
        with ThreadPoolExecutor(CONCURRENT_TURNS, thread_name_prefix="turn") as device:
            loops = [self._loop(source, device, leave, live_first).run for source in SOURCES]
            workers = [_Worker(run, leave) for run in (*loops, *self._post_vectors_runs())]
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

    def _loop(self, source: Source, device: Executor, leave: Event, live_first: LiveFirst) -> TransactionalLoop:
        heartbeat = self._make_heartbeat(source.name)
        topic = topics.context_names(self._contexts).of_kind(source.kind)

        def contexts(turn_s: float) -> ContextRecords:
            metrics, beat = self._metrics, heartbeat.still_working
            of_kind = partial(
                EncodeTurns, source.kind, self._encoder, device, leave, metrics=metrics, turn_s=turn_s, beat=beat
            )
            return ContextRecords(self._generation, of_kind(), metrics, self._text_vectors(source, of_kind))

        live = contexts(TURN_S[source.kind])
        replays = EncodeReplays(
            topics.replay_requests("encode", source.kind, self._generation),
            topic,
            contexts(REPLAY_TURN_S),
            live_first,
            RecordLookup(self._kafka),
            batch_records=self._settings.batch_records,
        )
        return TransactionalLoop(
            self._kafka,
            EncodeRecords(source.name, live, live_first),
            group=stages.encode_reads(self._generation).group,
            topics=[topic],
            transactional_id=f"{STAGE}.{self._generation}.{source.name}.{self._slot}",
            # One turn is one transaction, so that what is encoded becomes searchable within about a second.
            batch_records=lambda: min(self._settings.batch_records, live.turn_contexts),
            interval_s=self._settings.interval_s,
            background=replays,
            heartbeat=heartbeat,
            pace=self._pace,
            on_transaction=self._metrics.transactions.took,
        )

    def _text_vectors(self, source: Source, make_turns: Callable[..., EncodeTurns]) -> TextVectors | None:
        """None where they need not be encoded."""
        wanted = self._post_vectors
        if source.kind != "post" or wanted is None or wanted.is_text:
            return None
        return TextVectors(make_turns(texts_alone=True), wanted.dimension)

    def _post_vectors_runs(self) -> list[Callable[[Event], None]]:
        if self._post_vectors is None:
            return []
        heartbeat = self._make_heartbeat("post-vectors")
        return [PostVectorsWriter(self._kafka, self._post_vectors, self._slot, self._metrics, heartbeat).run]


class _Worker(Thread):
    """The thread of one loop. When the loop ends, for whatever reason, all others are told to leave."""

    def __init__(self, run_loop: Callable[[Event], None], leave: Event) -> None:
        super().__init__(name="encode")
        self.failure: BaseException | None = None
        self._run_loop = run_loop
        self._leave = leave

    def run(self) -> None:
        try:
            self._run_loop(self._leave)
        except Stopped:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self._leave.set()
