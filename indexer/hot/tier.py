"""The hot tier: the newest posts in slots of a preallocated matrix.

Owns the rules: which revision wins, what is new enough, who has to go from a full tier. Which slot a post is in is
`slot_table.py`, the vectors and their scan are `matrix.py`. Knows neither Kafka nor the device.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from indexer.errors import TierRefused
from indexer.hot.matrix import new_matrix
from indexer.hot.oldest_first import Age, OldestFirst
from indexer.hot.slot_table import SlotTable
from indexer.records import check, sorted_hits, stored_post
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, Clock, Filters, Hits, StoredPost
from schemas.embeddings import Embedding, PostEmbedding, Vector
from schemas.ids import Micros, PostId, Revision
from schemas.times import now_us

_STEP_POSTS: Final = 64
"""Applied at once, before searches may go on: about half a millisecond."""
_SPARE: Final = 0.1
"""Slots beyond the capacity, for what searches still look at: at 10,000 upserts/s a search of 20 ms keeps 200."""
_LEAST_SPARE: Final = 256
_SCROLL_PAGE: Final = 1_000


class MatrixHotTier:
    """The methods say what `HotTier` says. A search sees the posts as they were when it began. `upsert` waits for
    searches to end only where they look at all spare slots."""

    def __init__(self, dimension: int, settings: HotSettings, clock: Clock = now_us) -> None:
        self._dimension = dimension
        self._window_us = int(settings.window_s * 1_000_000)
        self._capacity = settings.capacity
        self._clock = clock
        num_slots = self._capacity + max(_LEAST_SPARE, int(_SPARE * self._capacity))
        self._matrix = new_matrix(num_slots, dimension, settings.device, settings.threads)
        self._slots = SlotTable(num_slots)
        self._deleted: dict[PostId, StoredPost] = {}
        self._live_by_age = OldestFirst(self._live_age, self._slots.__len__)
        self._deleted_by_age = OldestFirst(self._deleted_age, self._deleted.__len__)

    def upsert(self, embeddings: Sequence[Embedding]) -> int:
        posts = [self._checked(embedding) for embedding in embeddings]
        changed = 0
        for first in range(0, len(posts), _STEP_POSTS):
            changed += self._apply(posts[first : first + _STEP_POSTS])
            # Python's lock goes to a search that waits for it; it would else wait for 5 ms.
            time.sleep(0)
        return changed

    def expire(self, now_us: Micros) -> int:
        start = now_us - self._window_us
        dropped = 0
        with self._slots.alone():
            for by_age in (self._live_by_age, self._deleted_by_age):
                while (oldest := by_age.oldest()) is not None and oldest.created_at_us < start:
                    self._forget(oldest.post_id)
                    dropped += 1
            stale = self._slots.take_stale()
        self._erase(stale)
        return dropped

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        with self._slots.reading(filters) as mask:
            found = self._matrix.scan(query_D, k, mask)
            posts = [self._slots.post(slot) for slot in found.slots.tolist()]
        return sorted_hits([post.post_id for post in posts], found.scores, [post.revision for post in posts])

    def revisions(self, ids: Sequence[PostId]) -> list[Revision | None]:
        return [None if post is None else post.revision for post in self.posts(ids)]

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        with self._slots.alone():
            held = [self._held(post_id) for post_id in ids]
            if not with_vectors:
                return held
            return [None if post is None else self._with_vector(post) for post in held]

    def scroll_posts(self) -> Iterator[StoredPost]:
        ids = self._slots.post_ids()
        pages = (ids[first : first + _SCROLL_PAGE] for first in range(0, len(ids), _SCROLL_PAGE))
        return (post for page in pages for post in self.posts(page) if post is not None and not post.deleted)

    def count(self) -> int:
        return len(self._slots)

    def _erase(self, slots: Sequence[int]) -> None:
        """A free slot holds no vector: it may be one of a deleted post."""
        for first in range(0, len(slots), _STEP_POSTS):
            part = np.array(slots[first : first + _STEP_POSTS], np.int64)
            self._matrix.put(part, np.zeros((len(part), self._dimension), np.float32))
            time.sleep(0)

    def _checked(self, embedding: Embedding) -> PostEmbedding:
        if not isinstance(embedding, PostEmbedding):
            raise TierRefused(f"{embedding.entity_id} is a member; the hot tier holds posts")
        check(embedding, self._dimension)
        return embedding

    def _apply(self, posts: Sequence[PostEmbedding]) -> int:
        with self._slots.alone(room=len(posts)):
            start = Micros(self._clock() - self._window_us)
            taken: dict[int, bytes] = {}
            changed = sum(self._apply_one(post, start, taken) for post in posts)
            if taken:
                vectors_KD = np.frombuffer(b"".join(taken.values()), "<f4").reshape(-1, self._dimension)
                self._matrix.put(np.fromiter(taken, np.int64, len(taken)), vectors_KD)
        return changed

    def _apply_one(self, post: PostEmbedding, start: Micros, taken: dict[int, bytes]) -> bool:
        """What it puts into a slot goes into `taken`."""
        held = self._held(post.post_id)
        if held is not None and held.revision >= post.revision:
            return False
        self._forget(post.post_id)
        if post.created_at_us < start or not (post.deleted or self._make_room_for(post)):
            return held is not None
        if post.deleted:
            self._deleted[post.post_id] = stored_post(post)
            self._deleted_by_age.push(_age(post))
        else:
            taken[self._slots.take(post)] = post.vector
            self._live_by_age.push(_age(post))
        return True

    def _make_room_for(self, post: PostEmbedding) -> bool:
        """The oldest post of a full tier goes, or this one does not come."""
        if len(self._slots) < self._capacity:
            return True
        oldest = self._live_by_age.oldest()
        if oldest is None or _age(post) < oldest:
            return False
        self._forget(oldest.post_id)
        return True

    def _held(self, post_id: PostId) -> StoredPost | None:
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

    def _live_age(self, post_id: PostId) -> Micros | None:
        slot = self._slots.slot_of(post_id)
        return None if slot is None else self._slots.post(slot).created_at_us

    def _deleted_age(self, post_id: PostId) -> Micros | None:
        post = self._deleted.get(post_id)
        return None if post is None else post.created_at_us


def _age(post: PostEmbedding) -> Age:
    return Age(post.created_at_us, post.post_id)
