"""Contexts into embeddings, one kind at a time: the processor of the encode stage's transactional loops.

Knows contexts, embeddings and an encoder; knows nothing of transactions, groups and models.
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
from schemas.headers import origin_ms, with_origin
from schemas.ids import Generation, Kind, Offset
from streams.encode.metrics import EncodeMetrics
from streams.errors import Stopped
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.records import Output, Place
from streams.kafka.transactional_loop import OffsetsBefore, Processed

log = structlog.get_logger()

STAGE: Final = "encode"
TURN_S: Final[dict[Kind, float]] = {"post": 1.0, "member": 0.25}
"""How long one turn keeps the device. While both kinds have a backlog, members get a turn after every two of posts, a
ninth of the time: a flood of members must not make new posts late, and still gets through."""
_LEAST_TURN: Final[dict[Kind, int]] = {"post": 32, "member": 1}
"""A slow model takes longer for so many posts, but fewer at once would be slower still: each batch reads all its
weights. A member may be fifty texts."""
_FIRST_TURN: Final = 8
_BEAT_EVERY_S: Final = 1.0

_Turn = tuple[list[Outcome], float]
"""Outcomes, and the seconds that the device took for them."""


class Prepared(Protocol):
    """Contexts that are ready for the device."""

    device_s: float
    """How long they kept it, once they have run."""


class StageEncoder(Protocol):
    """What the stage asks of an encoder. Two threads call it at once.

    One outcome per context, in order: a vector, an Unencodable, or None where there is nothing to encode. What it
    raises is the infrastructure's failure and ends the process.
    """

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Any: ...

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Any: ...

    def run(self, prepared: Any) -> list[Outcome]:
        """`prepared` is what one of the others gave."""
        ...


class _Newest(NamedTuple):
    """The newest context of one key in a batch, with the oldest origin of all of them."""

    message: Message
    context: Context
    origin_ms: int | None


class EncodeRecords:
    """One kind of entity. The loop's thread owns it."""

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
        """`beat` is called every second of a turn: a large model may take minutes for one."""
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
        self._least_turn = _LEAST_TURN[kind]
        self.turn_contexts = max(_FIRST_TURN, self._least_turn)
        """So many contexts take about a turn."""
        self._stop = stop

    def assigned(self, committed: Mapping[Place, Offset | None]) -> None:
        """No state to restore."""

    def revoked(self, places: Sequence[Place]) -> None:
        """No state to give back."""

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """Nothing is counted."""
        return []

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Nothing is ever due without a record."""
        return None

    def committed(self, delivered: Mapping[Place, Offset]) -> None:
        """Nothing local to write."""

    def process(self, records: Sequence[Message], offsets_before: OffsetsBefore) -> Processed:
        """Embeddings of the newest contexts, and dead letters. Raises Stopped between two turns: then nothing of the
        batch is committed, and whoever comes next encodes it."""
        newest, outputs = self._read(records)
        outcomes = self._in_turns([one.context for one in newest])
        encoded = 0
        for one, outcome in zip(newest, outcomes, strict=True):
            if isinstance(outcome, Unencodable):
                outputs.append(_dead_letter(one.message, outcome.cause))
            else:
                outputs.append(self._output(one, outcome))
                encoded += 1
        self._metrics.batch(self._kind, encoded, dead=len(outputs) - encoded)
        return Processed(outputs, len(records))

    def _read(self, records: Sequence[Message]) -> tuple[list[_Newest], list[Output]]:
        """Only the newest revision of a key is encoded; what cannot be read is a dead letter."""
        found: dict[bytes, _Newest] = {}
        letters: list[Output] = []
        for message in records:
            try:
                key, context = self._context(message)
            except BadRecord as error:
                letters.append(_dead_letter(message, str(error)))
                continue
            found[key] = _newer(found.get(key), _Newest(message, context, origin_ms(message)))
        return list(found.values()), letters

    def _context(self, message: Message) -> tuple[bytes, Context]:
        key, value = message.key(), message.value()
        if key is None:
            raise BadRecord("the key is null; a context's key is its entity's id")
        if value is None:
            raise BadRecord("the value is null; a delete is a context with deleted set")
        return key, self._decode(value)

    def _in_turns(self, contexts: Sequence[Context]) -> list[Outcome]:
        """Shares the encoder with the other loops, a turn at a time."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(contexts):
            if self._stop.is_set():
                raise Stopped("the encode stage was stopped within a batch")
            part = contexts[len(outcomes) : len(outcomes) + self.turn_contexts]
            found, took_s = self._wait(self._device.submit(self._turn, part, time.perf_counter()))
            outcomes += found
            self._adapt(len(part), took_s)
        return outcomes

    def _wait(self, turn: Future[_Turn]) -> _Turn:
        while not wait([turn], _BEAT_EVERY_S).done:
            self._beat()
        return turn.result()

    def _turn(self, contexts: Sequence[Context], asked_at: float) -> _Turn:
        """In one of the encoder's threads."""
        if self._stop.is_set():
            raise Stopped("the encode stage was stopped before a turn")
        began = time.perf_counter()
        prepared = self._prepare(contexts)
        self._metrics.turn(self._kind, began - asked_at, time.perf_counter() - began)
        return self._run(prepared), prepared.device_s

    def _adapt(self, num_contexts: int, took_s: float) -> None:
        """Turns of about the right length, whatever the model, the device and the texts."""
        if took_s > self._turn_s:
            self.turn_contexts = max(self._least_turn, int(num_contexts * self._turn_s / took_s))
        elif num_contexts == self.turn_contexts and took_s < self._turn_s / 2:
            self.turn_contexts *= 2

    def _output(self, one: _Newest, outcome: Outcome) -> Output:
        vector = b"" if outcome is None or isinstance(outcome, Unencodable) else pack_vector(outcome)
        body = encode_embedding(_embedding(one.context, vector))
        return Output(self._topic, one.message.key(), body, with_origin(one.origin_ms))


def _newer(seen: _Newest | None, one: _Newest) -> _Newest:
    if seen is None:
        return one
    newest = one if one.context.revision >= seen.context.revision else seen
    return newest._replace(origin_ms=min((o for o in (seen.origin_ms, one.origin_ms) if o is not None), default=None))


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
        context.member_id, context.revision, context.deleted, context.acted, context.hidden, context.language, vector
    )


def _dead_letter(message: Message, cause: str) -> Output:
    log.warning("a context became a dead letter", topic=message.topic(), offset=message.offset(), cause=cause)
    return dead_letter_record(STAGE, message, cause)
