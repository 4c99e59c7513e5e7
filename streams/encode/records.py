"""Turns contexts into embeddings, of one kind of entity: the processor of the encode stage's transactional loops.

Knows contexts, embeddings and an encoder. Knows nothing of transactions, groups and models.

Several loops share one encoder, so each gives it a limited number of contexts at once: a *turn*.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from threading import Event
from typing import Any, Final, NamedTuple, Protocol

import structlog
from confluent_kafka import Message

from encoders.errors import Outcome, Unencodable
from schemas import topics
from schemas.contexts import Context, MemberContext, PostContext, decode_member_context, decode_post_context
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, encode_embedding, pack_vector
from schemas.errors import BadRecord
from schemas.headers import read_origin_ms, with_origin
from schemas.ids import Generation, Kind, Offset
from streams.encode.metrics import EncodeMetrics
from streams.errors import Stopped
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.processor import OffsetsToCommit, Processed
from streams.kafka.records import Output, Place

log = structlog.get_logger()

STAGE: Final = "encode"
TURN_S: Final[dict[Kind, float]] = {"post": 1.0, "member": 0.25}
"""How long one turn may keep the device. While both kinds have a backlog, members get one turn after every two turns
of posts. That is a ninth of the time: a flood of members does not delay new posts, and still gets through."""
_MIN_TURN: Final[dict[Kind, int]] = {"post": 32, "member": 1}
"""Contexts of a turn, at least. With a slow model 32 posts take longer than TURN_S, but smaller turns would be slower
still, because each turn reads all weights of the model. One member may be fifty texts."""
_FIRST_TURN: Final = 8
_BEAT_EVERY_S: Final = 1.0

_TurnResult = tuple[list[Outcome], float]
"""The outcomes, and the seconds that the device took for them."""


class Prepared(Protocol):
    """Contexts that are ready for the device."""

    device_s: float
    """How long the device worked on them. Set once they have run."""


class StageEncoder(Protocol):
    """What the stage asks of an encoder. Two threads call it at the same time.

    It returns one outcome per context, in order: a vector, an Unencodable, or None if there is nothing to encode. An
    exception means that the infrastructure failed, and ends the process.
    """

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Any: ...

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Any: ...

    def run(self, prepared: Any) -> list[Outcome]:
        """`prepared` comes from `prepare_posts` or `prepare_members`."""
        ...


class _Newest(NamedTuple):
    """The newest context of one key in a batch, with the oldest origin among the contexts of this key."""

    message: Message
    context: Context
    origin_ms: int | None


class EncodeRecords:
    """Encodes the records of one kind of entity. The loop's thread owns it."""

    def __init__(
        self,
        kind: Kind,
        generation: Generation,
        encoder: StageEncoder,
        device: Executor,
        stop: Event,
        *,
        metrics: EncodeMetrics,
        beat: Beat = no_beat,
    ) -> None:
        """`beat` is called every second while a turn lasts: with a large model that may be minutes."""
        self._kind = kind
        self._topic = topics.embeddings(kind, generation)
        self._decode: Callable[[bytes], Context] = decode_post_context if kind == "post" else decode_member_context
        self._prepare: Callable[[Sequence[Context]], Prepared] = (
            encoder.prepare_posts if kind == "post" else encoder.prepare_members  # type: ignore[assignment]
        )
        self._run = encoder.run
        self._device = device
        self._metrics = metrics
        self._beat = beat
        self._turn_s = TURN_S[kind]
        self._min_turn = _MIN_TURN[kind]
        self.turn_contexts = max(_FIRST_TURN, self._min_turn)
        """How many contexts the device is expected to encode in the time of one turn."""
        self._stop = stop

    def on_assigned(self, committed_offsets: Mapping[Place, Offset | None]) -> None:
        """There is no state to restore."""

    def on_revoked(self, places: Sequence[Place]) -> None:
        """There is no state to close."""

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """There is no state that counts how far it has read."""
        return []

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Nothing is ever due without a record."""
        return None

    def on_committed(self, last_written: Mapping[Place, Offset]) -> None:
        """There is no local state to write."""

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        """Returns embeddings of the newest contexts, and dead letters. Raises Stopped between two turns. Then nothing
        of the batch is committed, and the next owner of the partitions encodes it."""
        newest, outputs = self._decode_newest(records)
        outcomes = self._encode_in_turns([entry.context for entry in newest])
        encoded = 0
        for entry, outcome in zip(newest, outcomes, strict=True):
            if isinstance(outcome, Unencodable):
                outputs.append(_dead_letter(entry.message, outcome.cause))
            else:
                outputs.append(self._output(entry, outcome))
                encoded += 1
        self._metrics.batch(self._kind, encoded, dead=len(outputs) - encoded)
        return Processed(outputs, len(records))

    def _decode_newest(self, records: Sequence[Message]) -> tuple[list[_Newest], list[Output]]:
        """The newest context of each key, and dead letters of the records that cannot be read."""
        newest: dict[bytes, _Newest] = {}
        letters: list[Output] = []
        for message in records:
            try:
                key, context = self._decode_record(message)
            except BadRecord as error:
                letters.append(_dead_letter(message, str(error)))
                continue
            newest[key] = _newer(newest.get(key), _Newest(message, context, read_origin_ms(message)))
        return list(newest.values()), letters

    def _decode_record(self, message: Message) -> tuple[bytes, Context]:
        key, value = message.key(), message.value()
        if key is None:
            raise BadRecord("the key is null; a context's key is its entity's id")
        if value is None:
            raise BadRecord("the value is null; a delete is a context with deleted set")
        return key, self._decode(value)

    def _encode_in_turns(self, contexts: Sequence[Context]) -> list[Outcome]:
        """After each turn the encoder may serve another loop."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(contexts):
            if self._stop.is_set():
                raise Stopped("the encode stage was stopped within a batch")
            part = contexts[len(outcomes) : len(outcomes) + self.turn_contexts]
            turn_outcomes, device_s = self._wait_for(self._device.submit(self._turn, part, time.perf_counter()))
            outcomes += turn_outcomes
            self._adapt_turn(len(part), device_s)
        return outcomes

    def _wait_for(self, turn: Future[_TurnResult]) -> _TurnResult:
        while not wait([turn], _BEAT_EVERY_S).done:
            self._beat()
        return turn.result()

    def _turn(self, contexts: Sequence[Context], submitted_at: float) -> _TurnResult:
        """Runs in one of the encoder's threads."""
        if self._stop.is_set():
            raise Stopped("the encode stage was stopped before a turn")
        began = time.perf_counter()
        prepared = self._prepare(contexts)
        self._metrics.turn(self._kind, began - submitted_at, time.perf_counter() - began)
        return self._run(prepared), prepared.device_s

    def _adapt_turn(self, num_contexts: int, device_s: float) -> None:
        """Keeps turns near their time, whatever the model, the device and the texts."""
        if device_s > self._turn_s:
            self.turn_contexts = max(self._min_turn, int(num_contexts * self._turn_s / device_s))
        elif num_contexts == self.turn_contexts and device_s < self._turn_s / 2:
            self.turn_contexts *= 2

    def _output(self, entry: _Newest, outcome: Outcome) -> Output:
        vector = b"" if outcome is None or isinstance(outcome, Unencodable) else pack_vector(outcome)
        body = encode_embedding(_embedding(entry.context, vector))
        return Output(self._topic, entry.message.key(), body, with_origin(entry.origin_ms))


def _newer(known: _Newest | None, candidate: _Newest) -> _Newest:
    if known is None:
        return candidate
    newest = candidate if candidate.context.revision >= known.context.revision else known
    origins_ms = [entry.origin_ms for entry in (known, candidate) if entry.origin_ms is not None]
    return newest._replace(origin_ms=min(origins_ms, default=None))


def _embedding(context: Context, vector: bytes) -> Embedding:
    if isinstance(context, PostContext):
        return PostEmbedding(
            context.post_id,
            context.revision,
            context.deleted,
            context.author_id,
            context.language,
            context.created_at_us,
            vector,
        )
    return MemberEmbedding(
        context.member_id,
        context.revision,
        context.deleted,
        context.acted,
        context.hidden,
        context.language,
        vector,
        context.seen,
    )


def _dead_letter(message: Message, cause: str) -> Output:
    log.warning("a context became a dead letter", topic=message.topic(), offset=message.offset(), cause=cause)
    return dead_letter_record(STAGE, message, cause)
