"""The messages on the cold tier's Unix socket. Each is one frame, encoded as msgpack and never as pickle.

A client sends one request. The owner answers it with an `Answer` or a `Failure`, or with several answers to a `Scroll`.
Scores and revisions are sent as byte strings, as they are in memory. Owns no connection.

Why not gRPC (grpcio 1.85 over the same kind of socket, in turns with this, 2,096 hits, no search): a call took 0.34 ms
here and 1.15 ms there, and of CPU on both sides together 0.38 and 1.21 ms. Ids as one joined string were no quicker to
decode than as a list.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from indexer.errors import IndexerError, TierLate, TierRefused, TierUnavailable
from indexer.tiers import ColdHits, ColdQuery, Filters, StoredMember, StoredPost
from schemas.embeddings import pack_vector, unpack_vector
from schemas.ids import Kind, MemberId, Micros, Offset, Partition, PostId, Revision


class _Request(Struct, kw_only=True):
    timeout_s: float | None = None
    """The client hangs up after this time."""


class Query(Struct):
    vector: bytes
    k: int
    languages: list[str]
    created_after_us: Micros | None
    created_before_us: Micros | None
    exclude_authors: list[str]
    exclude_posts: list[str]
    only_authors: list[str] | None
    only_posts: list[str] | None
    exact: bool = False


class Search(_Request, tag="search"):
    queries: list[Query]


class AskPosition(_Request, tag="position"): ...


class Posts(_Request, tag="posts"):
    ids: list[PostId]
    with_vectors: bool


class Members(_Request, tag="members"):
    ids: list[MemberId]


class Scroll(_Request, tag="scroll"):
    """Answered with pages; the last page is empty."""


class Count(_Request, tag="count"):
    kind: Kind


class AskFreshness(_Request, tag="freshness"): ...


Request = Search | AskPosition | Posts | Members | Scroll | Count | AskFreshness


class Failure(Struct, tag="failure"):
    kind: Literal["refused", "late", "unavailable"]
    """TierRefused, TierLate or TierUnavailable."""
    message: str


class Answer(Struct, tag="answer"):
    body: msgspec.Raw
    """Its type depends on the request."""


class PackedHits(Struct):
    post_ids: list[PostId]
    scores: bytes
    revisions: bytes
    position: dict[Partition, Offset]

    def __post_init__(self) -> None:
        if (len(self.scores), len(self.revisions)) != (4 * len(self.post_ids), 8 * len(self.post_ids)):
            raise ValueError("each hit has a score and a revision")


PackedPost = tuple[PostId, Revision, bool, MemberId, str | None, Micros, bytes]
"""The fields of StoredPost; an empty vector stands for None."""
PackedMember = tuple[MemberId, Revision, bool, list[PostId], list[PostId], bytes, list[PostId], bytes]
"""The fields of StoredMember; an empty vector stands for None."""

T = TypeVar("T")

_DECODING_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_ERRORS: Final[dict[str, type[IndexerError]]] = {
    "refused": TierRefused,
    "late": TierLate,
    "unavailable": TierUnavailable,
}
_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer | Failure)


def encode_request(request: Request) -> bytes:
    return _encoder.encode(request)


def decode_request(frame: bytes | bytearray) -> Request:
    """Raises TierRefused."""
    try:
        request: Request = _requests.decode(frame)
    except _DECODING_ERRORS as error:
        raise TierRefused(f"not a request to the cold tier: {error}") from error
    return request


def encode_answer(body: Any) -> bytes:
    return _encoder.encode(Answer(msgspec.Raw(_encoder.encode(body))))


def encode_failure(error: IndexerError) -> bytes:
    return _encoder.encode(Failure(_kind(error), str(error)))


def _kind(error: IndexerError) -> Literal["refused", "late", "unavailable"]:
    if isinstance(error, TierRefused):
        return "refused"
    return "late" if isinstance(error, TierLate) else "unavailable"


def decode_answer(frame: bytes | bytearray, body_type: type[T]) -> T:
    """The body of an answer. Raises TierRefused, TierLate or TierUnavailable if the tier has raised it."""
    try:
        answer = _answers.decode(frame)
        if isinstance(answer, Answer):
            return msgspec.msgpack.decode(answer.body, type=body_type)
    except _DECODING_ERRORS as error:
        raise TierUnavailable(f"the cold process speaks another version: {error}") from error
    raise _ERRORS[answer.kind](answer.message)


def search_request(queries: Sequence[ColdQuery]) -> Search:
    return Search([_pack_query(query) for query in queries])


def queries_of(search: Search) -> list[ColdQuery]:
    """Raises TierRefused."""
    return [_unpack_query(query) for query in search.queries]


def _pack_query(query: ColdQuery) -> Query:
    filters = query.filters
    return Query(
        pack_vector(query.vector_D),
        query.k,
        list(filters.languages),
        filters.created_after_us,
        filters.created_before_us,
        list(filters.exclude_authors),
        list(filters.exclude_posts),
        None if filters.only_authors is None else list(filters.only_authors),
        None if filters.only_posts is None else list(filters.only_posts),
        query.exact,
    )


def _unpack_query(query: Query) -> ColdQuery:
    if not query.vector or len(query.vector) % 4:
        raise TierRefused("a search has a vector of float32 numbers")
    filters = Filters(
        frozenset(query.languages),
        query.created_after_us,
        frozenset(query.exclude_authors),
        frozenset(query.exclude_posts),
        query.created_before_us,
        None if query.only_authors is None else frozenset(query.only_authors),
        None if query.only_posts is None else frozenset(query.only_posts),
    )
    return ColdQuery(np.frombuffer(query.vector, "<f4"), query.k, filters, query.exact)


def pack_hits(hits: ColdHits) -> PackedHits:
    scores = np.asarray(hits.scores, "<f4").tobytes()
    return PackedHits(hits.post_ids, scores, np.asarray(hits.revisions, "<i8").tobytes(), dict(hits.position))


def unpack_hits(hits: PackedHits) -> ColdHits:
    scores, revisions = np.frombuffer(hits.scores, "<f4"), np.frombuffer(hits.revisions, "<i8")
    return ColdHits(hits.post_ids, scores, revisions, hits.position)


def pack_post(post: StoredPost) -> PackedPost:
    return (*post[:6], b"" if post.vector is None else pack_vector(post.vector))


def unpack_post(post: PackedPost) -> StoredPost:
    return StoredPost(*post[:6], unpack_vector(post[6]))


def pack_member(member: StoredMember) -> PackedMember:
    return (*member[:5], b"" if member.vector is None else pack_vector(member.vector), member.seen, member.interests)


def unpack_member(member: PackedMember) -> StoredMember:
    return StoredMember(*member[:5], unpack_vector(member[5]), member[6], member[7])
