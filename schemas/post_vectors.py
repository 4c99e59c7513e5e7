"""The records of the topics `post-vectors` and `post-vectors-switch` (JSON): vectors of posts for other teams.

`post-vectors` has one record for each live post, whose key is the post's id: the vector of its text alone, by the model
of the serving generation. A tombstone says that the post is deleted. The headers of both say the generation, the number
of dimensions and the revision of the post, as ASCII. `post-vectors-switch` has one key. Its newest record says from
when on every live post has a vector of the generation that it names. `docs/post-vectors.md` is for readers; the JSON
Schemas are `schemas/post_vector.schema.json` and `schemas/post_vectors_switch.schema.json`.
"""

from typing import Final

import msgspec
from msgspec import Struct

from schemas.dead_letters import Headers
from schemas.errors import BadRecord
from schemas.generations import Moment
from schemas.ids import Generation, MemberId, Offset, Partition, PostId, Revision

SWITCH_KEY: Final = b"post-vectors"
REIGN_PREFIX: Final = "reign="
"""Stands before the tag of a reign in the metadata of each offset that is committed in it."""


class PostVector(Struct, frozen=True):
    """`vector`: `dimension` little-endian float32 numbers, of length one together, in base64."""

    post_id: PostId
    generation: Generation
    dimension: int
    revision: Revision
    """Grows with every change of the post within one generation."""
    author_id: MemberId
    language: str | None
    created_at: Moment
    vector: bytes


class PostVectorsSwitch(Struct, frozen=True):
    """From now on the vectors of `generation` count, and those of no other: vectors of two generations can never be
    compared."""

    generation: Generation
    dimension: int
    since: Moment
    """When the generation began to serve."""
    complete: dict[Partition, Offset]
    """Whoever has read each partition of `post-vectors` up to this offset has a vector of this generation for every
    post that was there when it began to serve, unless the post is deleted."""


_encoder = msgspec.json.Encoder()
_vector = msgspec.json.Decoder(PostVector)
_switch = msgspec.json.Decoder(PostVectorsSwitch)


def beginning_of_tag(generation: Generation, since: Moment) -> str:
    """Of the reign in which this generation serves since then. The number of dimensions follows."""
    return f"{generation} {since.isoformat()} "


def headers_of_vector(generation: Generation, dimension: int, revision: Revision) -> Headers:
    return [("generation", generation.encode()), ("dimension", b"%d" % dimension), ("revision", b"%d" % revision)]


def encode_post_vector(vector: PostVector) -> bytes:
    return _encoder.encode(vector)


def decode_post_vector(body: bytes) -> PostVector:
    """Raises BadRecord."""
    try:
        return _vector.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a post's vector: {error}") from error


def encode_switch(switch: PostVectorsSwitch) -> bytes:
    return _encoder.encode(switch)


def decode_switch(body: bytes) -> PostVectorsSwitch:
    """Raises BadRecord."""
    try:
        return _switch.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a switch of the post vectors: {error}") from error
