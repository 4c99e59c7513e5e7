"""The messages on the cold tier's Unix socket. Each is one frame, encoded as msgpack and never as pickle.

A client sends one request. The owner answers it with an `Answer` or a `Failure`, or with several answers to a `Scroll`.
Scores and revisions are sent as byte strings, as they are in memory. Owns no connection.
"""

from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from indexer.errors import IndexerError, TierRefused, TierUnavailable
from indexer.tiers import Filters, Hits, StoredMember, StoredPost
from schemas.embeddings import Vector, pack_vector, unpack_vector
from schemas.ids import Kind, MemberId, Micros, PostId, Revision


class Search(Struct, tag="search"):
    vector: bytes
    k: int
    languages: list[str]
    created_after_us: Micros | None
    exclude_authors: list[str]
    exclude_posts: list[str]


class Posts(Struct, tag="posts"):
    ids: list[PostId]
    with_vectors: bool


class Members(Struct, tag="members"):
    ids: list[MemberId]


class Scroll(Struct, tag="scroll"):
    """Answered with pages; the last page is empty."""


class Count(Struct, tag="count"):
    kind: Kind


class AskFreshness(Struct, tag="freshness"): ...


Request = Search | Posts | Members | Scroll | Count | AskFreshness


class Failure(Struct, tag="failure"):
    refused: bool
    """True for TierRefused, False for TierUnavailable."""
    message: str


class Answer(Struct, tag="answer"):
    body: msgspec.Raw
    """Its type depends on the request."""


class PackedHits(Struct):
    post_ids: list[PostId]
    scores: bytes
    revisions: bytes

    def __post_init__(self) -> None:
        if (len(self.scores), len(self.revisions)) != (4 * len(self.post_ids), 8 * len(self.post_ids)):
            raise ValueError("each hit has a score and a revision")


PackedPost = tuple[PostId, Revision, bool, MemberId, str | None, Micros, bytes]
"""The fields of StoredPost; an empty vector stands for None."""
PackedMember = tuple[MemberId, Revision, bool, list[PostId], list[PostId], bytes, list[PostId]]
"""The fields of StoredMember; an empty vector stands for None."""

T = TypeVar("T")

_DECODING_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer | Failure)


def encode_request(request: Request) -> bytes:
    return _encoder.encode(request)


def decode_request(frame: bytes) -> Request:
    """Raises TierRefused."""
    try:
        request: Request = _requests.decode(frame)
    except _DECODING_ERRORS as error:
        raise TierRefused(f"not a request to the cold tier: {error}") from error
    return request


def encode_answer(body: Any) -> bytes:
    return _encoder.encode(Answer(msgspec.Raw(_encoder.encode(body))))


def encode_failure(error: IndexerError) -> bytes:
    return _encoder.encode(Failure(isinstance(error, TierRefused), str(error)))


def decode_answer(frame: bytes, body_type: type[T]) -> T:
    """The body of an answer. Raises TierRefused or TierUnavailable if the tier has raised it."""
    try:
        answer = _answers.decode(frame)
        if isinstance(answer, Answer):
            return msgspec.msgpack.decode(answer.body, type=body_type)
    except _DECODING_ERRORS as error:
        raise TierUnavailable(f"the cold process speaks another version: {error}") from error
    raise TierRefused(answer.message) if answer.refused else TierUnavailable(answer.message)


def search_request(query_D: Vector, k: int, filters: Filters) -> Search:
    return Search(
        pack_vector(query_D),
        k,
        sorted(filters.languages),
        filters.created_after_us,
        sorted(filters.exclude_authors),
        sorted(filters.exclude_posts),
    )


def unpack_query(search: Search) -> Vector:
    """Raises TierRefused."""
    if not search.vector or len(search.vector) % 4:
        raise TierRefused("a search has a vector of float32 numbers")
    return np.frombuffer(search.vector, "<f4")


def filters_of(search: Search) -> Filters:
    return Filters(
        frozenset(search.languages),
        search.created_after_us,
        frozenset(search.exclude_authors),
        frozenset(search.exclude_posts),
    )


def pack_hits(hits: Hits) -> PackedHits:
    scores = np.asarray(hits.scores, "<f4").tobytes()
    return PackedHits(hits.post_ids, scores, np.asarray(hits.revisions, "<i8").tobytes())


def unpack_hits(hits: PackedHits) -> Hits:
    scores = np.frombuffer(hits.scores, "<f4")
    return Hits(hits.post_ids, scores, np.frombuffer(hits.revisions, "<i8").tolist())


def pack_post(post: StoredPost) -> PackedPost:
    return (*post[:6], b"" if post.vector is None else pack_vector(post.vector))


def unpack_post(post: PackedPost) -> StoredPost:
    return StoredPost(*post[:6], unpack_vector(post[6]))


def pack_member(member: StoredMember) -> PackedMember:
    return (*member[:5], b"" if member.vector is None else pack_vector(member.vector), member.seen)


def unpack_member(member: PackedMember) -> StoredMember:
    return StoredMember(*member[:5], unpack_vector(member[5]), member[6])
