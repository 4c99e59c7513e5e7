"""Records as points of a Qdrant server and back, and filters as its filters. Pure functions; asks no server."""

import uuid
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from qdrant_client import models

from indexer.tiers import Filters, IndexRecord, StoredMember, StoredPost
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, Vector, unpack_vector
from schemas.ids import Micros, Partition

_NAMESPACE: Final = uuid.UUID("8f2d1f0e-6d0c-5d3a-9d3e-0f4b6f6e6172")
"""Of point ids. It never changes, so that an entity keeps its point."""

LIVE: Final = models.Filter(must=[models.FieldCondition(key="deleted", match=models.MatchValue(value=False))])


def point_id(entity_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, entity_id))


def to_point(record: IndexRecord, now: Micros) -> models.PointStruct:
    embedding = record.embedding
    vector = None if embedding.deleted else unpack_vector(embedding.vector)
    payload = {
        "revision": embedding.revision,
        "partition": record.partition,
        "offset": record.offset,
        "deleted": embedding.deleted,
        "written_at_us": now,
        **_fields_of_kind(embedding),
    }
    return models.PointStruct(
        id=point_id(embedding.entity_id), vector={} if vector is None else vector.tolist(), payload=payload
    )


def _fields_of_kind(embedding: Embedding) -> dict[str, Any]:
    if isinstance(embedding, MemberEmbedding):
        lists = {"acted": embedding.acted, "hidden": embedding.hidden, "seen": embedding.seen}
        # Always set: an upsert with a condition might otherwise leave the interests of an older record.
        interests = {"interests": b64encode(embedding.interests).decode()}
        return {"member_id": embedding.member_id, **({} if embedding.deleted else lists | interests)}
    assert isinstance(embedding, PostEmbedding)
    return {
        "post_id": embedding.post_id,
        "author_id": embedding.author_id,
        "language": embedding.language,
        "created_at_us": embedding.created_at_us,
    }


def to_filter(filters: Filters) -> models.Filter | None:
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    if filters.languages:
        must.append(models.FieldCondition(key="language", match=models.MatchAny(any=sorted(filters.languages))))
    if filters.created_after_us is not None or filters.created_before_us is not None:
        between = models.Range(gt=filters.created_after_us, lt=filters.created_before_us)
        must.append(models.FieldCondition(key="created_at_us", range=between))
    if filters.only_authors is not None:
        must.append(_by_authors(filters.only_authors))
    if filters.only_posts is not None:
        must.append(_with_ids(filters.only_posts))
    if filters.exclude_authors:
        must_not.append(_by_authors(filters.exclude_authors))
    if filters.exclude_posts:
        must_not.append(_with_ids(filters.exclude_posts))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def _by_authors(authors: Iterable[str]) -> models.FieldCondition:
    return models.FieldCondition(key="author_id", match=models.MatchAny(any=sorted(authors)))


def _with_ids(post_ids: Iterable[str]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=[point_id(post_id) for post_id in sorted(post_ids)])


def written_before(partition: Partition, offset: int) -> models.Filter:
    """Points that are stored from a record of this partition before this offset."""
    return models.Filter(
        must=[
            models.FieldCondition(key="partition", match=models.MatchValue(value=partition)),
            models.FieldCondition(key="offset", range=models.Range(lt=offset)),
        ]
    )


def written_from_older(record: IndexRecord) -> models.Filter:
    """Points whose stored record is older by the rule of `revision_guard.py`."""
    revision = record.embedding.revision
    same_revision = models.FieldCondition(key="revision", match=models.MatchValue(value=revision))
    before = written_before(record.partition, record.offset)
    return models.Filter(
        should=[
            models.FieldCondition(key="revision", range=models.Range(lt=revision)),
            models.Filter(must=[same_revision, before]),
        ]
    )


def payload_of(point: models.Record | models.ScoredPoint) -> dict[str, Any]:
    return point.payload or {}


def to_post(point: models.Record) -> StoredPost:
    payload = payload_of(point)
    return StoredPost(
        payload["post_id"],
        payload["revision"],
        payload["deleted"],
        payload["author_id"],
        payload["language"],
        payload["created_at_us"],
        _vector(point),
    )


def to_member(point: models.Record) -> StoredMember:
    payload = payload_of(point)
    return StoredMember(
        payload["member_id"],
        payload["revision"],
        payload["deleted"],
        payload.get("acted", []),
        payload.get("hidden", []),
        _vector(point),
        payload.get("seen", []),
        b64decode(payload.get("interests", "")),
    )


def _vector(point: models.Record) -> Vector | None:
    return np.array(point.vector, np.float32) if isinstance(point.vector, list) else None
