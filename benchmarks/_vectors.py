"""Posts for the benchmarks of the tiers: vectors around shared subjects, so that neighbours are close."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from schemas.embeddings import MemberEmbedding, PostEmbedding, Vector, pack_vector
from schemas.ids import MemberId, Micros, PostId, Revision

_SUBJECTS: Final = 200
_AUTHORS: Final = 50_000
_LANGUAGES: Final = ("en", "de", "fr", None)


def draw(count: int, dimension: int, seed: int = 0) -> Vector:
    """(count, dimension), of length one; the same subjects for every seed."""
    centers = np.random.default_rng(7).standard_normal((_SUBJECTS, dimension), dtype=np.float32)
    drawn = np.random.default_rng(seed)
    vectors = drawn.standard_normal((count, dimension), dtype=np.float32)
    vectors += centers[drawn.integers(0, _SUBJECTS, count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def post(number: int, vector: Vector, *, created_at_us: int, revision: int = 1) -> PostEmbedding:
    return PostEmbedding(
        PostId(f"post-{number}"),
        Revision(revision),
        False,
        MemberId(f"author-{number % _AUTHORS}"),
        _LANGUAGES[number % len(_LANGUAGES)],
        Micros(created_at_us),
        pack_vector(vector),
    )


def member(number: int, vector: Vector) -> MemberEmbedding:
    """One who acted on a few posts, hid one, and wrote some."""
    acted = [PostId(f"post-{number * 10 + place}") for place in range(5)]
    return MemberEmbedding(
        MemberId(f"author-{number}"), Revision(1), False, acted, [PostId(f"post-{number}")], "en", pack_vector(vector)
    )


def posts(vectors: Vector, *, newest_us: int, spacing_us: int, first: int = 0) -> Iterator[PostEmbedding]:
    """One for each row, numbered from `first`; the last is the newest."""
    last = len(vectors) - 1
    for row, vector in enumerate(vectors):
        yield post(first + row, vector, created_at_us=newest_us - (last - row) * spacing_us)
