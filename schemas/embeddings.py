"""Embedding records: what the encode stage writes and both tiers read (msgpack).

A vector is `dimension` little-endian float32 numbers, already normalised to length one.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.ids import MemberId, Micros, PostId, Revision

Vector = npt.NDArray[np.float32]


_INTERESTS_FORM: Final = 1
_MOST_INTERESTS: Final = 16
"""Of one member; a package asks for five at most. Each is a query of its own, and a question with more queries than fit
one search would never be answered."""


class Interest(NamedTuple):
    """One of several vectors of a member."""

    vector_D: Vector
    weight: float
    """Above zero; what counts is its share of the sum."""


class PostEmbedding(Struct, frozen=True, omit_defaults=True):
    """A deleted post has an empty vector. It keeps `created_at_us`, for the hot tier's window."""

    post_id: PostId
    revision: Revision
    deleted: bool
    author_id: MemberId
    language: str | None
    created_at_us: Micros
    vector: bytes
    text_vector: bytes = b""
    """Of the text alone, cut, for `post-vectors`. Empty where `vector` is of the text alone, or where nobody asked."""

    @property
    def entity_id(self) -> str:
        return self.post_id


class MemberEmbedding(Struct, frozen=True):
    """The vector is empty if the member is deleted, or has neither profile nor history."""

    member_id: MemberId
    revision: Revision
    deleted: bool
    acted: list[PostId]
    hidden: list[PostId]
    language: str | None
    vector: bytes
    seen: list[PostId] = []
    interests: bytes = b""
    """As `pack_interests` packs them; empty for a member that has one vector. A reader that knows none, or not their
    form, takes `vector`, which every member has that has any."""

    @property
    def entity_id(self) -> str:
        return self.member_id


Embedding = PostEmbedding | MemberEmbedding

_encoder = msgspec.msgpack.Encoder()
_post = msgspec.msgpack.Decoder(PostEmbedding)
_member = msgspec.msgpack.Decoder(MemberEmbedding)


def encode_embedding(embedding: Embedding) -> bytes:
    return _encoder.encode(embedding)


def decode_post_embedding(body: bytes) -> PostEmbedding:
    """Raises BadRecord."""
    try:
        return _post.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a post embedding: {error}") from error


def decode_member_embedding(body: bytes) -> MemberEmbedding:
    """Raises BadRecord."""
    try:
        return _member.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a member embedding: {error}") from error


class _PackedInterests(Struct, array_like=True):
    form: int
    weights: list[float]
    vectors: bytes
    """All vectors, one after the other."""


_interests = msgspec.msgpack.Decoder(_PackedInterests)


def pack_interests(interests: Sequence[Interest]) -> bytes:
    if not interests:
        return b""
    vectors = b"".join(pack_vector(interest.vector_D) for interest in interests)
    return _encoder.encode(_PackedInterests(_INTERESTS_FORM, [interest.weight for interest in interests], vectors))


def unpack_interests(body: bytes) -> list[Interest]:
    """Empty for what a later version has packed in a form of its own. Raises BadRecord."""
    if not body:
        return []
    try:
        packed = _interests.decode(body)
    except msgspec.DecodeError as error:
        raise BadRecord(f"interests: {error}") from error
    if packed.form != _INTERESTS_FORM:
        return []
    number, size = len(packed.weights), len(packed.vectors)
    if number > _MOST_INTERESTS:
        raise BadRecord(f"interests: {number} are more than {_MOST_INTERESTS}")
    if not number or size % (4 * number) or not all(0 < weight < float("inf") for weight in packed.weights):
        raise BadRecord(f"interests: {size} bytes are no vectors for {number} weights above zero")
    vectors_ID = np.frombuffer(packed.vectors, dtype="<f4").reshape(number, -1)
    return [Interest(vector_D, weight) for vector_D, weight in zip(vectors_ID, packed.weights, strict=True)]


def pack_vector(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack_vector(body: bytes) -> Vector | None:
    """float32 (D,), read-only; None for an empty vector."""
    return np.frombuffer(body, dtype="<f4") if body else None
