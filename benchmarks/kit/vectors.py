"""Random posts and members for the benchmarks of the tiers. Their vectors lie around a few hundred shared subjects, so
that neighbours are close, as in real data."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from schemas.embeddings import Interest, MemberEmbedding, PostEmbedding, Vector, pack_interests, pack_vector
from schemas.ids import MemberId, Micros, PostId, Revision

_SUBJECTS: Final = 200
NUM_AUTHORS: Final = 50_000
_LANGUAGES: Final = ("en", "de", "fr", None)


def draw(count: int, dimension: int, seed: int = 0) -> Vector:
    """Vectors (count, dimension) of length one. Every seed uses the same subjects."""
    centers = np.random.default_rng(7).standard_normal((_SUBJECTS, dimension), dtype=np.float32)
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    vectors += centers[rng.integers(0, _SUBJECTS, count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def post(number: int, vector: Vector, *, created_at_us: int, revision: int = 1) -> PostEmbedding:
    return PostEmbedding(
        PostId(f"post-{number}"),
        Revision(revision),
        False,
        MemberId(f"author-{number % NUM_AUTHORS}"),
        _LANGUAGES[number % len(_LANGUAGES)],
        Micros(created_at_us),
        pack_vector(vector),
    )


def member(number: int, vector: Vector, interests: Sequence[Interest] = ()) -> MemberEmbedding:
    """A member who acted on five posts, hid one, and wrote those whose author has this number."""
    acted = [PostId(f"post-{number * 10 + offset}") for offset in range(5)]
    return MemberEmbedding(
        MemberId(f"author-{number}"),
        Revision(1),
        False,
        acted,
        [PostId(f"post-{number}")],
        "en",
        pack_vector(vector),
        interests=pack_interests(interests),
    )


def posts(vectors: Vector, *, newest_us: int, spacing_us: int, first: int = 0) -> Iterator[PostEmbedding]:
    """One post for each row, numbered from `first`. The last is the newest."""
    last = len(vectors) - 1
    for row, vector in enumerate(vectors):
        yield post(first + row, vector, created_at_us=newest_us - (last - row) * spacing_us)
