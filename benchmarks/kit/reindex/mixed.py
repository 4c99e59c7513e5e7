"""Whether an answer comes from one generation: its scores must be those of one member in the generation that it names.

Shapes: P posts, M members, K candidates, D dimensions.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

import numpy as np

from nearline.ask.connections import Connections
from nearline.chaos.pipeline_state import read_cold_posts, read_in_chunks
from retriever.nearline_pb2 import RetrieveResponse
from schemas.embeddings import Vector
from schemas.ids import Generation, MemberId

_SAME_SCORE: Final = 1e-3
"""A GPU's half precision, and the order of sums, change scores by less than this."""


class Vectors(NamedTuple):
    """Of one generation."""

    rows: dict[str, int]
    """The row of each post in `posts_PD`."""
    posts_PD: Vector
    members_MD: Vector


def read_vectors(connections: Connections, generation: Generation, member_ids: Sequence[str]) -> Vectors:
    """Raises RuntimeError where a vector is missing."""
    with closing(connections.cold(generation=generation)) as cold:
        posts = read_cold_posts(cold)
        members = read_in_chunks(cold.members, [MemberId(member_id) for member_id in member_ids])
    post_vectors = [post.vector for post in posts.values() if post.vector is not None]
    member_vectors = [member.vector for member in members.values() if member.vector is not None]
    if len(post_vectors) != len(posts) or len(member_vectors) != len(member_ids):
        raise RuntimeError(f"{generation} lacks vectors of posts or members")
    rows = {post_id: row for row, post_id in enumerate(posts)}
    return Vectors(rows, np.stack(post_vectors), np.stack(member_vectors))


def num_mixed(answers: Sequence[RetrieveResponse], generations: Mapping[Generation, Vectors]) -> int:
    return sum(is_mixed(answer, generations) for answer in answers)


def is_mixed(answer: RetrieveResponse, generations: Mapping[Generation, Vectors]) -> bool:
    vectors = generations.get(Generation(answer.generation))
    if vectors is None or not vectors.rows.keys() >= set(answer.post_ids):
        return True
    posts_KD = vectors.posts_PD[[vectors.rows[post_id] for post_id in answer.post_ids]]
    differences_MK = np.abs(vectors.members_MD @ posts_KD.T - np.asarray(answer.scores, np.float32))
    return not bool(np.any(np.all(differences_MK < _SAME_SCORE, axis=1)))


def num_switches(answers: Sequence[RetrieveResponse]) -> int:
    """How often the next answer comes from another generation."""
    return sum(first.generation != second.generation for first, second in itertools.pairwise(answers))
