"""Posts as columns, before they have slots and when they are written to disk.

Shapes: K posts, D dimensions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.embeddings import PostEmbedding, Vector


class Batch(NamedTuple):
    ids: Sequence[str]
    authors: Sequence[str]
    languages: Sequence[str | None]
    revisions: npt.NDArray[np.int64]
    deleted: npt.NDArray[np.bool_]
    created_at_us: npt.NDArray[np.int64]
    vectors_KD: Vector
    """Zeros for a deleted post."""


def as_batch(posts: Sequence[PostEmbedding], dimension: int) -> Batch:
    deleted = np.array([post.deleted for post in posts], np.bool_)
    vectors_KD = np.zeros((len(posts), dimension), np.float32)
    joined = b"".join([post.vector for post in posts if not post.deleted])
    vectors_KD[~deleted] = np.frombuffer(joined, "<f4").reshape(-1, dimension)
    return Batch(
        ids=[post.post_id for post in posts],
        authors=[post.author_id for post in posts],
        languages=[post.language for post in posts],
        revisions=np.array([post.revision for post in posts], np.int64),
        deleted=deleted,
        created_at_us=np.array([post.created_at_us for post in posts], np.int64),
        vectors_KD=vectors_KD,
    )
