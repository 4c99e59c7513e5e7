"""What every tier does with records before it stores them: reading them, the check of a vector, the revision guard.

Pure functions. Knows no tier.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from indexer.best import best_k
from indexer.errors import TierRefused
from indexer.tiers import Hits, IndexRecord, Scores, StoredMember, StoredPost
from schemas.embeddings import (
    Embedding,
    MemberEmbedding,
    PostEmbedding,
    decode_member_embedding,
    decode_post_embedding,
    unpack_vector,
)
from schemas.errors import BadRecord
from schemas.ids import Kind, PostId, Revision

_LENGTH_TOLERANCE: Final = 0.01
"""Of a vector's squared length. A model may answer in bfloat16; a vector that was never normalised is far off."""


class Newest(NamedTuple):
    """`records` are those to store, one per entity; `changes` counts every record that changed something."""

    records: list[IndexRecord]
    changes: int


def newest(records: Iterable[IndexRecord], stored: Callable[[str], Revision]) -> Newest:
    """The revision guard over a batch in its order. `stored` gives 0 for what was never written."""
    kept: dict[str, IndexRecord] = {}
    changes = 0
    for record in records:
        entity_id = record.embedding.entity_id
        before = kept.get(entity_id)
        revision = before.embedding.revision if before is not None else stored(entity_id)
        if record.embedding.revision > revision:
            kept[entity_id] = record
            changes += 1
    return Newest(list(kept.values()), changes)


def read_embedding(kind: Kind, body: bytes | None) -> Embedding:
    """The one check of what comes in by an embedding topic, for both tiers: a record that one of them leaves out must
    not be in the other. Raises BadRecord."""
    if body is None:
        raise BadRecord("the value is null; a delete is an embedding with deleted set")
    embedding: Embedding = decode_post_embedding(body) if kind == "post" else decode_member_embedding(body)
    if embedding.deleted:
        # No tier stores its vector, and a delete must not fail for it.
        return embedding
    if len(embedding.vector) % 4:
        raise BadRecord(f"vector: {len(embedding.vector)} bytes are not a whole number of float32")
    vector = unpack_vector(embedding.vector)
    # Not a number and infinite ones fail this too.
    if vector is not None and not abs(float(np.dot(vector, vector)) - 1.0) < _LENGTH_TOLERANCE:
        raise BadRecord("vector: it is not of length one")
    return embedding


def check(embedding: Embedding, dimension: int) -> None:
    """Raises TierRefused for a vector that no search could compare."""
    if embedding.deleted:
        return
    size = len(embedding.vector) // 4
    if len(embedding.vector) % 4 or size not in (0, dimension):
        raise TierRefused(
            f"{embedding.entity_id}: a vector of {size} numbers; this tier holds vectors of {dimension}; "
            "encode it again with the package of this generation"
        )
    if size == 0 and isinstance(embedding, PostEmbedding):
        raise TierRefused(f"{embedding.entity_id}: a post that is not deleted has a vector; this one has none")


def sorted_hits(ids: Sequence[str], scores: Scores, revisions: Sequence[Revision]) -> Hits:
    """The hits by (-score, post id)."""
    rows = best_k(scores, len(scores), ids)
    return Hits([PostId(ids[row]) for row in rows], scores[rows], [revisions[row] for row in rows])


def stored_post(embedding: PostEmbedding) -> StoredPost:
    return StoredPost(
        embedding.post_id,
        embedding.revision,
        embedding.deleted,
        embedding.author_id,
        embedding.language,
        embedding.created_at_us,
        None if embedding.deleted else unpack_vector(embedding.vector),
    )


def stored_member(embedding: MemberEmbedding) -> StoredMember:
    if embedding.deleted:
        return StoredMember(embedding.member_id, embedding.revision, True, [], [], None)
    vector = unpack_vector(embedding.vector)
    return StoredMember(embedding.member_id, embedding.revision, False, embedding.acted, embedding.hidden, vector)
