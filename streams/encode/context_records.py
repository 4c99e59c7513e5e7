"""Turns records with contexts into records with embeddings, of one kind of entity.

Knows contexts, embeddings and the encoder's turns. Knows nothing of transactions, groups and models, and loads no Kafka
client: `benchmarks/gpu` runs it where there is none.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from encoders.errors import Outcome, SeveralVectors, Unencodable, one_vector
from schemas import topics, traces
from schemas.contexts import Context, PostContext, decode_member_context, decode_post_context
from schemas.dead_letters import DeadLetterKind
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, encode_embedding, pack_interests, pack_vector
from schemas.errors import BadRecord
from schemas.headers import Origin, older, read_origin_ms, with_origin
from schemas.ids import Generation
from streams.encode.metrics import EncodeMetrics
from streams.encode.turns import EncodeTurns
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.records import Output

if TYPE_CHECKING:
    from confluent_kafka import Message

log = structlog.get_logger()

STAGE: Final = "encode"


class _Newest(NamedTuple):
    """The newest context of one key in a batch, with the oldest origin among the contexts of this key."""

    message: "Message"
    context: Context
    origin: Origin | None
    """Without its trace; that goes on from the message."""


class TextVectors(NamedTuple):
    """Posts also get the vector of their text alone, cut to `dimension`."""

    turns: EncodeTurns
    dimension: int


class ContextRecords:
    """The loop's thread owns it."""

    def __init__(
        self, generation: Generation, turns: EncodeTurns, metrics: EncodeMetrics, texts: TextVectors | None = None
    ) -> None:
        self._kind = turns.kind
        self._topic = topics.embeddings(turns.kind, generation)
        self._decode: Callable[[bytes], Context] = (
            decode_post_context if turns.kind == "post" else decode_member_context
        )
        self._turns = turns
        self._metrics = metrics
        self._texts = texts

    @property
    def turn_contexts(self) -> int:
        """How many contexts the device is expected to encode in one turn."""
        return self._turns.turn_contexts

    def encode(self, records: "Sequence[Message]", *, with_origins: bool = True) -> list[Output]:
        """Embeddings of the newest context of each key, and dead letters. Without origins nobody counts from the
        embeddings how fresh they are. Raises Stopped between two turns."""
        newest, outputs = self._decode_newest(records, with_origins)
        contexts = [entry.context for entry in newest]
        outcomes = self._turns.encode(contexts)
        encoded = 0
        for entry, outcome, text_vector in zip(newest, outcomes, self._text_vectors(contexts), strict=True):
            if isinstance(outcome, Unencodable):
                outputs.append(dead_letter(entry.message, outcome.cause, "unencodable"))
            else:
                outputs.append(self._output(entry, outcome, text_vector))
                encoded += 1
        self._metrics.batch(self._kind, encoded, dead=len(outputs) - encoded)
        return outputs

    def _decode_newest(self, records: "Sequence[Message]", with_origins: bool) -> tuple[list[_Newest], list[Output]]:
        """The newest context of each key, and dead letters of the records that cannot be read."""
        newest: dict[bytes, _Newest] = {}
        letters: list[Output] = []
        for message in records:
            try:
                key, context = self._decode_record(message)
            except BadRecord as error:
                letters.append(dead_letter(message, str(error)))
                continue
            origin_ms = read_origin_ms(message) if with_origins else None
            origin = None if origin_ms is None else Origin(origin_ms)
            newest[key] = _newer(newest.get(key), _Newest(message, context, origin))
        return list(newest.values()), letters

    def _decode_record(self, message: "Message") -> tuple[bytes, Context]:
        key, value = message.key(), message.value()
        if key is None:
            raise BadRecord("the key is null; a context's key is its entity's id")
        if value is None:
            raise BadRecord("the value is null; a delete is a context with deleted set")
        return key, self._decode(value)

    def _text_vectors(self, contexts: Sequence[Context]) -> list[bytes]:
        if self._texts is None:
            return [b""] * len(contexts)
        outcomes = self._texts.turns.encode(contexts)
        return [_packed(outcome)[: 4 * self._texts.dimension] for outcome in outcomes]

    def _output(self, entry: _Newest, outcome: Outcome, text_vector: bytes) -> Output:
        interests = pack_interests(outcome.interests) if isinstance(outcome, SeveralVectors) else b""
        body = encode_embedding(_embedding(entry.context, _packed(outcome), text_vector, interests))
        origin = entry.origin and entry.origin._replace(traceparent=traces.passed(STAGE, entry.message))
        return Output(self._topic, entry.message.key(), body, with_origin(origin))


def _newer(known: _Newest | None, candidate: _Newest) -> _Newest:
    if known is None:
        return candidate
    newest = candidate if candidate.context.revision >= known.context.revision else known
    return newest._replace(origin=older(known.origin, candidate.origin))


def _packed(outcome: Outcome) -> bytes:
    vector_D = one_vector(outcome)
    return b"" if vector_D is None or isinstance(vector_D, Unencodable) else pack_vector(vector_D)


def _embedding(context: Context, vector: bytes, text_vector: bytes, interests: bytes) -> Embedding:
    if isinstance(context, PostContext):
        return PostEmbedding(
            context.post_id,
            context.revision,
            context.deleted,
            context.author_id,
            context.language,
            context.created_at_us,
            vector,
            text_vector,
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
        interests,
    )


def dead_letter(message: "Message", cause: str, kind: DeadLetterKind = "bad_record") -> Output:
    place = {"topic": message.topic(), "offset": message.offset()}
    log.warning("a record became a dead letter", **place, cause=cause, **traces.named(message))
    return dead_letter_record(STAGE, message, cause, kind)
