"""Turns records with contexts into records with embeddings, of one kind of entity.

Knows contexts, embeddings and the encoder's turns. Knows nothing of transactions, groups and models.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog
from confluent_kafka import Message

from encoders.errors import Outcome, Unencodable
from schemas import topics
from schemas.contexts import Context, PostContext, decode_member_context, decode_post_context
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, encode_embedding, pack_vector
from schemas.errors import BadRecord
from schemas.headers import read_origin_ms, with_origin
from schemas.ids import Generation
from streams.encode.metrics import EncodeMetrics
from streams.encode.turns import EncodeTurns
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.records import Output

log = structlog.get_logger()

STAGE: Final = "encode"


class _Newest(NamedTuple):
    """The newest context of one key in a batch, with the oldest origin among the contexts of this key."""

    message: Message
    context: Context
    origin_ms: int | None


class ContextRecords:
    """The loop's thread owns it."""

    def __init__(self, generation: Generation, turns: EncodeTurns, metrics: EncodeMetrics) -> None:
        self._kind = turns.kind
        self._topic = topics.embeddings(turns.kind, generation)
        self._decode: Callable[[bytes], Context] = (
            decode_post_context if turns.kind == "post" else decode_member_context
        )
        self._turns = turns
        self._metrics = metrics

    @property
    def turn_contexts(self) -> int:
        """How many contexts the device is expected to encode in one turn."""
        return self._turns.turn_contexts

    def encode(self, records: Sequence[Message], *, with_origins: bool = True) -> list[Output]:
        """Embeddings of the newest context of each key, and dead letters. Without origins nobody counts from the
        embeddings how fresh they are. Raises Stopped between two turns."""
        newest, outputs = self._decode_newest(records, with_origins)
        outcomes = self._turns.encode([entry.context for entry in newest])
        encoded = 0
        for entry, outcome in zip(newest, outcomes, strict=True):
            if isinstance(outcome, Unencodable):
                outputs.append(dead_letter(entry.message, outcome.cause))
            else:
                outputs.append(self._output(entry, outcome))
                encoded += 1
        self._metrics.batch(self._kind, encoded, dead=len(outputs) - encoded)
        return outputs

    def _decode_newest(self, records: Sequence[Message], with_origins: bool) -> tuple[list[_Newest], list[Output]]:
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
            newest[key] = _newer(newest.get(key), _Newest(message, context, origin_ms))
        return list(newest.values()), letters

    def _decode_record(self, message: Message) -> tuple[bytes, Context]:
        key, value = message.key(), message.value()
        if key is None:
            raise BadRecord("the key is null; a context's key is its entity's id")
        if value is None:
            raise BadRecord("the value is null; a delete is a context with deleted set")
        return key, self._decode(value)

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


def dead_letter(message: Message, cause: str) -> Output:
    log.warning("a record became a dead letter", topic=message.topic(), offset=message.offset(), cause=cause)
    return dead_letter_record(STAGE, message, cause)
