"""What every tier does with records before it stores them (decoding, the check of the vector), and the order of hits.

Which of two records is the newer one is decided in `revision_guard.py`. Pure functions. Knows no tier.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.best import best_k
from indexer.errors import TierRefused
from indexer.tiers import ColdHits, Hits, Offsets, Scores, StoredMember, StoredPost
from schemas.embeddings import (
    Embedding,
    MemberEmbedding,
    PostEmbedding,
    decode_member_embedding,
    decode_post_embedding,
    unpack_interests,
    unpack_vector,
)
from schemas.errors import BadRecord
from schemas.ids import Kind, PostId, Revision

_LENGTH_TOLERANCE: Final = 0.01
"""How far a vector's squared length may be from one, because a model may answer in bfloat16. A vector that was never
normalised is further off."""


def read_embedding(kind: Kind, value: bytes | None) -> Embedding:
    """Decodes and checks a record of an embedding topic. Both tiers use this, so that they leave out the same records.
    Raises BadRecord."""
    if value is None:
        raise BadRecord("the value is null; a delete is an embedding with deleted set")
    embedding: Embedding = decode_post_embedding(value) if kind == "post" else decode_member_embedding(value)
    if embedding.deleted:
        # No tier stores the vector of a delete, so a wrong one must not make the delete fail.
        return embedding
    if len(embedding.vector) % 4:
        raise BadRecord(f"vector: {len(embedding.vector)} bytes are not a whole number of float32")
    vector = unpack_vector(embedding.vector)
    # Written with `not`, so that NaN and infinite numbers fail it too.
    if vector is not None and not abs(float(np.dot(vector, vector)) - 1.0) < _LENGTH_TOLERANCE:
        raise BadRecord("vector: it is not of length one")
    if isinstance(embedding, MemberEmbedding) and not all(
        abs(float(np.dot(interest.vector_D, interest.vector_D)) - 1.0) < _LENGTH_TOLERANCE
        for interest in unpack_interests(embedding.interests)
    ):
        raise BadRecord("interests: a vector is not of length one")
    return embedding


def check_vector(embedding: Embedding, dimension: int) -> None:
    """Raises TierRefused for a vector that a tier of this dimension cannot search."""
    if embedding.deleted:
        return
    size = len(embedding.vector) // 4
    if isinstance(embedding, MemberEmbedding):
        # Of interests that are in a form of a later version nothing is searched.
        interests = unpack_interests(embedding.interests)
        size = next((each.vector_D.size for each in interests if each.vector_D.size != dimension), size)
    if len(embedding.vector) % 4 or size not in (0, dimension):
        raise TierRefused(
            f"{embedding.entity_id}: a vector of {size} numbers; this tier holds vectors of {dimension}; "
            "encode it again with the package of this generation"
        )
    if size == 0 and isinstance(embedding, PostEmbedding):
        raise TierRefused(f"{embedding.entity_id}: a post that is not deleted has a vector; this one has none")


def cold_hits(ids: list[PostId], scores: Scores, revisions: npt.NDArray[np.int64], position: Offsets) -> ColdHits:
    """Hits in the order of (-score, post id)."""
    rows = best_k(scores, len(scores), ids)
    if (rows[1:] > rows[:-1]).all():
        # They came in this order, as nearly always.
        return ColdHits(ids, scores, revisions, position)
    return ColdHits([ids[row] for row in rows.tolist()], scores[rows], revisions[rows], position)


def sorted_hits(ids: Sequence[str], scores: Scores, revisions: Sequence[Revision]) -> Hits:
    """Hits in the order of (-score, post id)."""
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
        return StoredMember(embedding.member_id, embedding.revision, True, [], [], None, [])
    vector = unpack_vector(embedding.vector)
    return StoredMember(
        embedding.member_id,
        embedding.revision,
        False,
        embedding.acted,
        embedding.hidden,
        vector,
        embedding.seen,
        embedding.interests,
    )
