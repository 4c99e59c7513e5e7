"""Embedding records: what the encode stage writes and both tiers read (msgpack).

A vector is `dimension` little-endian float32 numbers, already normalised to length one.
"""

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.ids import MemberId, Micros, PostId, Revision

Vector = npt.NDArray[np.float32]


class PostEmbedding(Struct, frozen=True):
    """A deleted post has an empty vector. It keeps `created_at_us`, for the hot tier's window."""

    post_id: PostId
    revision: Revision
    deleted: bool
    author_id: MemberId
    language: str | None
    created_at_us: Micros
    vector: bytes

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


def pack_vector(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpack_vector(body: bytes) -> Vector | None:
    """float32 (D,), read-only; None for an empty vector."""
    return np.frombuffer(body, dtype="<f4") if body else None
