"""What comes in while a service is measured: posts and members' new vectors, by number. Two processes that make the
same number make the same record, so that both tiers are fed without a broker. The service as it was before runs a copy
of this file, so it uses only what both have.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from benchmarks.kit.vectors import draw, member, post
from schemas.embeddings import MemberEmbedding, PostEmbedding
from schemas.ids import Micros, Offset, Partition, Revision

PARTITIONS: Final = 8
_VECTORS: Final = 4096
"""So many are drawn. New posts and members take one of them."""
_DELETE_EVERY: Final = 20


class LiveRecords:
    """The records after the first `num_posts`. Of 20 writes 10 are new posts, 9 are new revisions of a post, new or
    old, and one is a delete."""

    def __init__(self, num_posts: int, dimension: int, newest_us: int) -> None:
        self._num_posts = num_posts
        self._newest_us = newest_us
        self._posts = draw(_VECTORS, dimension, seed=2)
        self._members = draw(_VECTORS, dimension, seed=3)

    def posts(self, first: int, end: int) -> Iterator[tuple[PostEmbedding, Partition, Offset]]:
        """The writes with the numbers from `first` to below `end`, which count from 0."""
        for number in range(first, end):
            yield self._post(number), *place(self._num_posts + number)

    def member(self, number: int, revision: int) -> MemberEmbedding:
        vector = self._members[(number * 31 + revision * 17) % _VECTORS]
        return msgspec.structs.replace(member(number, vector), revision=Revision(revision))

    def _post(self, number: int) -> PostEmbedding:
        created_at_us = Micros(self._newest_us + number)
        vector = self._posts[number % _VECTORS]
        if number % 2 == 0:
            return post(self._num_posts + number, vector, created_at_us=created_at_us)
        changed = int(np.random.default_rng(number).integers(0, self._num_posts + number))
        record = post(changed, vector, created_at_us=created_at_us, revision=number + 2)
        if number % _DELETE_EVERY == 1:
            return msgspec.structs.replace(record, deleted=True, vector=b"")
        return record


def place(number: int) -> tuple[Partition, Offset]:
    """Where the record with this number stands in the topic. Offsets have gaps, as after compaction."""
    return Partition(number % PARTITIONS), Offset(number)
