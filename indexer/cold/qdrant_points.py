"""Records as points of a Qdrant server and back, and filters as its filters. Pure functions; asks no server."""

import uuid
from typing import Any, Final

import numpy as np
from qdrant_client import models

from indexer.tiers import Filters, IndexRecord, StoredMember, StoredPost
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, Vector, unpack_vector
from schemas.ids import Micros

_NAMESPACE: Final = uuid.UUID("8f2d1f0e-6d0c-5d3a-9d3e-0f4b6f6e6172")
"""Of point ids. Never changes: an entity keeps its point."""

LIVE: Final = models.Filter(must=[models.FieldCondition(key="deleted", match=models.MatchValue(value=False))])


def point_id(entity_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, entity_id))


def to_point(record: IndexRecord, now: Micros) -> models.PointStruct:
    one = record.embedding
    vector = None if one.deleted else unpack_vector(one.vector)
    payload = {
        "revision": one.revision,
        "partition": record.partition,
        "offset": record.offset,
        "deleted": one.deleted,
        "written_at_us": now,
        **_fields(one),
    }
    return models.PointStruct(
        id=point_id(one.entity_id), vector={} if vector is None else vector.tolist(), payload=payload
    )


def _fields(one: Embedding) -> dict[str, Any]:
    if isinstance(one, MemberEmbedding):
        lists = {} if one.deleted else {"acted": one.acted, "hidden": one.hidden}
        return {"member_id": one.member_id, **lists}
    assert isinstance(one, PostEmbedding)
    return {
        "post_id": one.post_id,
        "author_id": one.author_id,
        "language": one.language,
        "created_at_us": one.created_at_us,
    }


def to_filter(filters: Filters) -> models.Filter | None:
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    if filters.languages:
        must.append(models.FieldCondition(key="language", match=models.MatchAny(any=sorted(filters.languages))))
    if filters.created_after_us is not None:
        must.append(models.FieldCondition(key="created_at_us", range=models.Range(gt=filters.created_after_us)))
    if filters.exclude_authors:
        must_not.append(
            models.FieldCondition(key="author_id", match=models.MatchAny(any=sorted(filters.exclude_authors)))
        )
    if filters.exclude_posts:
        must_not.append(models.HasIdCondition(has_id=[point_id(one) for one in sorted(filters.exclude_posts)]))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def payload_of(point: models.Record | models.ScoredPoint) -> dict[str, Any]:
    return point.payload or {}


def _vector(point: models.Record) -> Vector | None:
    return np.array(point.vector, np.float32) if isinstance(point.vector, list) else None


def to_post(point: models.Record) -> StoredPost:
    of = payload_of(point)
    return StoredPost(
        of["post_id"],
        of["revision"],
        of["deleted"],
        of["author_id"],
        of["language"],
        of["created_at_us"],
        _vector(point),
    )


def to_member(point: models.Record) -> StoredMember:
    of = payload_of(point)
    return StoredMember(
        of["member_id"], of["revision"], of["deleted"], of.get("acted", []), of.get("hidden", []), _vector(point)
    )
