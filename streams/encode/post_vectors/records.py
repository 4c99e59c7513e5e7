"""Turns records with embeddings of posts into records of `post-vectors`. The processor of the loop that writes them.

Encodes nothing: what a vector is made of stands in the embedding.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
import structlog
from confluent_kafka import Message

from schemas.canaries import is_reserved
from schemas.embeddings import PostEmbedding, Vector, decode_post_embedding, pack_vector, unpack_vector
from schemas.errors import BadRecord
from schemas.headers import Origin, read_origin_ms, with_origin
from schemas.ids import Micros, Offset, Partition
from schemas.post_vectors import PostVector, encode_post_vector, headers_of_vector
from schemas.times import EPOCH, MICROSECOND, now_us
from schemas.topics import POST_VECTORS
from streams.encode.metrics import PostVectorMetrics
from streams.encode.post_vectors.reign import Reign
from streams.kafka.processor import OffsetsToCommit, Processed
from streams.kafka.records import Output, Place

log = structlog.get_logger(__name__)

_LAST: Final = EPOCH.replace(year=9999).astimezone(UTC)


class PostVectorRecords:
    """The loop's thread owns it."""

    def __init__(self, reign: Reign, metrics: PostVectorMetrics) -> None:
        self._reign = reign
        self._metrics = metrics
        self._began_us = now_us()
        self._origins_ms: list[int] = []

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
        self._metrics.committed(self._origins_ms)
        self._origins_ms = []

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        """Of each post the newest record of the batch counts: it lies behind the others."""
        newest = {record.key(): record for record in records}
        outputs = [output for record in newest.values() if (output := self._output(record)) is not None]
        return Processed(outputs, len(records))

    def _output(self, record: Message) -> Output | None:
        if is_reserved((record.key() or b"").decode(errors="replace")):
            return None  # a canary of the monitor is no post
        try:
            embedding, whole = self._read(record)
        except BadRecord as error:
            # The index stage makes a dead letter of it.
            log.warning("no post vector is made of this record", offset=record.offset(), cause=str(error))
            self._metrics.skipped()
            return None
        reign = self._reign
        headers = headers_of_vector(reign.generation, reign.dimension, embedding.revision)
        origin_ms = self._origin_ms(record)
        headers += with_origin(None if origin_ms is None else Origin(origin_ms)) or []
        value = None if embedding.deleted else self._value(embedding, whole)
        if value is None and not embedding.deleted:
            self._metrics.skipped()
            return None
        self._metrics.written(deleted=embedding.deleted)
        return Output(POST_VECTORS, record.key(), value, headers, Partition(int(record.partition() or 0)))

    def _read(self, record: Message) -> tuple[PostEmbedding, Vector | None]:
        """The vector is not cut yet; None where there is none, as of a delete. Raises BadRecord."""
        if record.key() is None:
            raise BadRecord("the key is null; a compacted topic takes none")
        embedding = decode_post_embedding(record.value() or b"")
        if embedding.deleted:
            return embedding, None
        body = embedding.vector if self._reign.is_text else embedding.text_vector
        if len(body) % 4:
            raise BadRecord(f"vector: {len(body)} bytes are not a whole number of float32")
        vector = unpack_vector(body)
        if vector is not None and not np.isfinite(vector).all():
            raise BadRecord("vector: a number is not finite")
        return embedding, vector

    def _origin_ms(self, record: Message) -> int | None:
        """Also remembered, unless the embedding was there before: then it says nothing of how long this took."""
        origin_ms = read_origin_ms(record)
        _, made_ms = record.timestamp()
        if origin_ms is not None and made_ms * 1000 >= self._began_us:
            self._origins_ms.append(origin_ms)
        return origin_ms

    def _value(self, embedding: PostEmbedding, whole: Vector | None) -> bytes | None:
        reign = self._reign
        if whole is None or (vector := cut_vector(whole, reign.dimension)) is None:
            return None
        made = PostVector(
            embedding.post_id,
            reign.generation,
            reign.dimension,
            embedding.revision,
            embedding.author_id,
            embedding.language,
            _moment(embedding.created_at_us),
            pack_vector(vector),
        )
        return encode_post_vector(made)


def cut_vector(vector: Vector, dimension: int) -> Vector | None:
    """Its first numbers, of length one again. None if there are fewer, or if their length is zero or too large."""
    shorter = vector[:dimension]
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(shorter))
    if len(shorter) < dimension or not 0 < length < math.inf:
        return None
    return np.asarray(shorter / np.float32(length), np.float32)


def _moment(at_us: Micros) -> datetime:
    try:
        return EPOCH + at_us * MICROSECOND
    except OverflowError:
        return _LAST
