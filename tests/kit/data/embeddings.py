"""Records of the embedding topics: posts and members with vectors, and their deletes."""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from indexer.tiers import HotRecord, IndexRecord
from schemas.embeddings import (
    Embedding,
    Interest,
    MemberEmbedding,
    PostEmbedding,
    Vector,
    pack_interests,
    pack_vector,
)
from schemas.ids import Generation, MemberId, Micros, Offset, Partition, PostId, Revision

DIMENSION: Final = 16
GENERATION: Final = Generation("test-0")
HOUR_US: Final = 3_600_000_000
NOW: Final = Micros(1_767_600_000_000_000)


def vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vector:
    """(count, dimension), of length one."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def post_embedding(
    post_id: str,
    revision: int = 1,
    *,
    vector: Vector | None = None,
    author: str = "m1",
    language: str | None = "en",
    created_at_us: int = NOW,
    deleted: bool = False,
) -> PostEmbedding:
    """The vector follows from the id and the revision unless it is passed. A deleted post has none."""
    if vector is None:
        vector = vectors(1, seed=zlib.crc32(f"{post_id} {revision}".encode()))[0]
    return PostEmbedding(
        PostId(post_id),
        Revision(revision),
        deleted,
        MemberId(author),
        None if deleted else language,
        Micros(created_at_us),
        b"" if deleted else pack_vector(vector),
    )


def member_embedding(
    member_id: str,
    revision: int = 1,
    *,
    vector: Vector | None = None,
    acted: Sequence[str] = (),
    hidden: Sequence[str] = (),
    seen: Sequence[str] = (),
    deleted: bool = False,
    empty: bool = False,
    interests: Sequence[tuple[Vector, float]] = (),
) -> MemberEmbedding:
    """The vector follows from the revision unless it is passed. `empty`: a member without a vector, and not deleted.
    `interests`: further vectors, and their weights."""
    if vector is None:
        vector = vectors(1, seed=revision)[0]
    return MemberEmbedding(
        MemberId(member_id),
        Revision(revision),
        deleted,
        [PostId(post_id) for post_id in acted],
        [PostId(post_id) for post_id in hidden],
        None if deleted else "en",
        b"" if deleted or empty else pack_vector(vector),
        [PostId(post_id) for post_id in seen],
        pack_interests([Interest(*interest) for interest in interests]),
    )


def index_records(*embeddings: Embedding, first: int = 0, partition: int = 0) -> list[IndexRecord]:
    """The embeddings with consecutive offsets from `first` on."""
    numbered = enumerate(embeddings, first)
    return [IndexRecord(embedding, Partition(partition), Offset(offset)) for offset, embedding in numbered]


def hot_records(*posts: PostEmbedding, first: int = 0, partition: int = 0, at_us: int = NOW) -> list[HotRecord]:
    """The posts with consecutive offsets from `first` on, all of the same time."""
    numbered = enumerate(posts, first)
    return [HotRecord(post, Partition(partition), Offset(offset), Micros(at_us)) for offset, post in numbered]
