"""Records as points of the embedded engine and back. Pure functions; asks no engine.

A point has a head, the fields of `Head` as a JSON array. A member's point also has a body: the posts acted on, the
posts hidden, the posts seen, and its interests in base64, where it has several.
"""

from base64 import b64decode, b64encode

import msgspec

from indexer.cold.edge.point_table import Head
from indexer.cold.edge.shards import Point
from indexer.tiers import IndexRecord, StoredMember, StoredPost
from schemas.embeddings import MemberEmbedding, PostEmbedding, Vector, unpack_vector
from schemas.ids import MemberId, Micros, PostId, Revision

_heads = msgspec.json.Decoder(Head)
_bodies = msgspec.json.Decoder(list[list[PostId]])
"""Bodies from before `seen` have two lists, those from before interests three. All are lists of strings, so that an
earlier version can read them too."""
_encoder = msgspec.json.Encoder()


def head_of(record: IndexRecord, now: Micros) -> Head:
    embedding = record.embedding
    common = (embedding.entity_id, embedding.revision, embedding.deleted, now, record.partition, record.offset)
    if isinstance(embedding, PostEmbedding):
        return Head(*common, embedding.author_id, embedding.language, embedding.created_at_us)
    return Head(*common)


def decode_head(head: str) -> Head:
    return _heads.decode(head)


def to_point(number: int, record: IndexRecord, head: Head) -> Point:
    embedding = record.embedding
    vector = None if embedding.deleted else unpack_vector(embedding.vector)
    body = None
    if isinstance(embedding, MemberEmbedding) and not embedding.deleted:
        interests = [[b64encode(embedding.interests).decode()]] if embedding.interests else []
        body = _encoder.encode([embedding.acted, embedding.hidden, embedding.seen, *interests]).decode()
    return Point(number, vector, _encoder.encode(head).decode(), body)


def to_post(head: Head, vector: Vector | None) -> StoredPost:
    return StoredPost(
        PostId(head.entity_id),
        Revision(head.revision),
        head.deleted,
        MemberId(head.author_id),
        head.language,
        Micros(head.created_at_us),
        vector,
    )


def to_member(point: Point) -> StoredMember:
    head = decode_head(point.head)
    lists = [] if point.body is None else _bodies.decode(point.body)
    acted, hidden, seen, interests = [*lists, [], [], [], []][:4]
    return StoredMember(
        MemberId(head.entity_id),
        Revision(head.revision),
        head.deleted,
        acted,
        hidden,
        point.vector,
        seen,
        b64decode(interests[0]) if interests else b"",
    )
