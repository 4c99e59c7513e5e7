"""The hot tier: the newest posts, in the slots of a preallocated matrix.

Owns the rules: which revision wins, which post is new enough, and which one leaves a full tier. `slot_table.py` knows
which post is in which slot, `matrix.py` holds the vectors and scans them. Knows neither Kafka nor the device.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from indexer.errors import TierRefused
from indexer.hot.matrix import new_matrix
from indexer.hot.oldest_first import Age, OldestFirst
from indexer.hot.slot_table import SlotTable
from indexer.records import check_vector, sorted_hits, stored_post
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, Clock, Filters, Hits, StoredPost
from schemas.embeddings import Embedding, PostEmbedding, Vector
from schemas.ids import Micros, PostId, Revision
from schemas.times import now_us

_STEP_POSTS: Final = 64
"""Applied at once, before searches may go on: about half a millisecond."""
_SPARE_SHARE: Final = 0.1
"""Slots beyond the capacity, as a share of it. They hold posts that are removed while searches still look at them: at
10,000 upserts/s there are 200 of them during a search of 20 ms."""
_MIN_SPARE: Final = 256
_SCROLL_PAGE: Final = 1_000


class MatrixHotTier:
    """Implements `HotTier`. A search sees the posts as they were when it began. `upsert` waits for searches only if
    they still look at all spare slots."""

    def __init__(self, dimension: int, settings: HotSettings, clock: Clock = now_us) -> None:
        self._dimension = dimension
        self._window_us = int(settings.window_s * 1_000_000)
        self._capacity = settings.capacity
        self._clock = clock
        num_slots = self._capacity + max(_MIN_SPARE, int(_SPARE_SHARE * self._capacity))
        self._matrix = new_matrix(num_slots, dimension, settings.device, settings.threads)
        self._slots = SlotTable(num_slots)
        self._deleted: dict[PostId, StoredPost] = {}
        self._oldest_live = OldestFirst(self._live_created_at, self._slots.__len__)
        self._oldest_deleted = OldestFirst(self._deleted_created_at, self._deleted.__len__)

    def upsert(self, embeddings: Sequence[Embedding]) -> int:
        posts = [self._checked(embedding) for embedding in embeddings]
        changed = 0
        for first in range(0, len(posts), _STEP_POSTS):
            changed += self._apply(posts[first : first + _STEP_POSTS])
            # Hands Python's lock to a waiting search, which would otherwise wait 5 ms for it.
            time.sleep(0)
        return changed

    def expire(self, now_us: Micros) -> int:
        window_start = now_us - self._window_us
        dropped = 0
        with self._slots.exclusive():
            for oldest_first in (self._oldest_live, self._oldest_deleted):
                while (oldest := oldest_first.oldest()) is not None and oldest.created_at_us < window_start:
                    self._forget(oldest.post_id)
                    dropped += 1
            uncleared = self._slots.pop_uncleared()
        self._erase(uncleared)
        return dropped

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        with self._slots.reading(filters) as mask:
            hits = self._matrix.scan(query_D, k, mask)
            posts = [self._slots.post(slot) for slot in hits.slots.tolist()]
        return sorted_hits([post.post_id for post in posts], hits.scores, [post.revision for post in posts])

    def revisions(self, ids: Sequence[PostId]) -> list[Revision | None]:
        return [None if post is None else post.revision for post in self.posts(ids)]

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        with self._slots.exclusive():
            posts = [self._stored(post_id) for post_id in ids]
            if not with_vectors:
                return posts
            return [None if post is None else self._with_vector(post) for post in posts]

    def scroll_posts(self) -> Iterator[StoredPost]:
        ids = self._slots.post_ids()
        pages = (ids[first : first + _SCROLL_PAGE] for first in range(0, len(ids), _SCROLL_PAGE))
        return (post for page in pages for post in self.posts(page) if post is not None and not post.deleted)

    def count(self) -> int:
        return len(self._slots)

    def _erase(self, slots: Sequence[int]) -> None:
        """Overwrites the vectors of free slots, because the vector of a deleted post must not stay."""
        for first in range(0, len(slots), _STEP_POSTS):
            part = np.array(slots[first : first + _STEP_POSTS], np.int64)
            self._matrix.put(part, np.zeros((len(part), self._dimension), np.float32))
            time.sleep(0)

    def _checked(self, embedding: Embedding) -> PostEmbedding:
        if not isinstance(embedding, PostEmbedding):
            raise TierRefused(f"{embedding.entity_id} is a member; the hot tier holds posts")
        check_vector(embedding, self._dimension)
        return embedding

    def _apply(self, posts: Sequence[PostEmbedding]) -> int:
        with self._slots.exclusive(num_free=len(posts)):
            window_start = Micros(self._clock() - self._window_us)
            new_vectors: dict[int, bytes] = {}
            changed = sum(self._apply_post(post, window_start, new_vectors) for post in posts)
            if new_vectors:
                vectors_KD = np.frombuffer(b"".join(new_vectors.values()), "<f4").reshape(-1, self._dimension)
                self._matrix.put(np.fromiter(new_vectors, np.int64, len(new_vectors)), vectors_KD)
        return changed

    def _apply_post(self, post: PostEmbedding, window_start: Micros, new_vectors: dict[int, bytes]) -> bool:
        """Returns whether the post changed something. The vector of a live post is only added to `new_vectors`, by
        slot; the caller puts these vectors into the matrix."""
        stored = self._stored(post.post_id)
        if stored is not None and stored.revision >= post.revision:
            return False
        self._forget(post.post_id)
        if post.created_at_us < window_start or not (post.deleted or self._make_room_for(post)):
            return stored is not None
        if post.deleted:
            self._deleted[post.post_id] = stored_post(post)
            self._oldest_deleted.push(_age(post))
        else:
            new_vectors[self._slots.take(post)] = post.vector
            self._oldest_live.push(_age(post))
        return True

    def _make_room_for(self, post: PostEmbedding) -> bool:
        """Drops the oldest post if the tier is full. False if the new post would itself be the oldest."""
        if len(self._slots) < self._capacity:
            return True
        oldest = self._oldest_live.oldest()
        if oldest is None or _age(post) < oldest:
            return False
        self._forget(oldest.post_id)
        return True

    def _stored(self, post_id: PostId) -> StoredPost | None:
        """The post, live or deleted, without its vector."""
        slot = self._slots.slot_of(post_id)
        return self._deleted.get(post_id) if slot is None else self._slots.post(slot)

    def _forget(self, post_id: PostId) -> None:
        slot = self._slots.slot_of(post_id)
        if slot is not None:
            self._slots.blank(slot)
        self._deleted.pop(post_id, None)

    def _with_vector(self, post: StoredPost) -> StoredPost:
        slot = self._slots.slot_of(post.post_id)
        return post if slot is None else post._replace(vector=self._matrix.get(np.array([slot]))[0])

    def _live_created_at(self, post_id: PostId) -> Micros | None:
        slot = self._slots.slot_of(post_id)
        return None if slot is None else self._slots.post(slot).created_at_us

    def _deleted_created_at(self, post_id: PostId) -> Micros | None:
        post = self._deleted.get(post_id)
        return None if post is None else post.created_at_us


def _age(post: PostEmbedding) -> Age:
    return Age(post.created_at_us, post.post_id)
