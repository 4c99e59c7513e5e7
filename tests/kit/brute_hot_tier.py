"""The hot tier as a plain dictionary: obviously right, but slow. The contract tests compare with it, and tests of the
retriever use it."""

import pickle
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from indexer.errors import SnapshotRefused
from indexer.id_table import UNKNOWN, IdTable
from indexer.records import check_vector, stored_post
from indexer.settings import HotSettings
from indexer.tiers import Filters, HotAnswer, HotQuery, HotRecord, Offsets, SnapshotMoment, StoredPost
from schemas.ids import Micros, Offset, Partition, PostId


class BruteHotTier:
    def __init__(self, dimension: int, settings: HotSettings, ids: IdTable) -> None:
        self._dimension = dimension
        self._window_us = settings.window_s * 1e6
        self._capacity = settings.capacity
        self._ids = ids
        self._held: dict[PostId, HotRecord] = {}
        """Live and deleted posts: the newest revision, with the place and time of the newest record."""
        self._floor: dict[Partition, Offset] = {}

    def begin(self, floor: Offsets) -> None:
        for partition, offset in floor.items():
            starts_again = offset < self._floor.get(partition, 0)
            for post_id, record in list(self._held.items()):
                if record.partition == partition and (starts_again or record.offset < offset):
                    self._forget(post_id)
            self._floor[partition] = offset

    def apply(self, records: Sequence[HotRecord]) -> int:
        for record in records:
            check_vector(record.embedding, self._dimension)
        return sum(self._apply(record) for record in records)

    def _apply(self, record: HotRecord) -> bool:
        if record.offset < self._floor.setdefault(record.partition, record.offset):
            return False
        post_id = record.embedding.post_id
        held = self._held.get(post_id)
        is_later = held is not None and record.partition == held.partition and record.offset > held.offset
        if held is not None and held.embedding.revision >= record.embedding.revision + is_later:
            if is_later:
                self._held[post_id] = held._replace(offset=record.offset, at_us=record.at_us)
            return False
        if held is None:
            if len(self._held) == self._capacity:
                self._drop(min(self._firsts(), key=lambda first: (first.at_us, first.partition)))
            self._ids.intern([post_id])
        self._held[post_id] = record
        return True

    def expire(self, now_us: Micros) -> int:
        dropped = 0
        while old := [first for first in self._firsts() if first.at_us < now_us - self._window_us]:
            self._drop(old[0])
            dropped += 1
        return dropped

    def _firsts(self) -> list[HotRecord]:
        """The record with the lowest offset of each partition."""
        by_offset = sorted(self._held.values(), key=lambda record: -record.offset)
        return list({record.partition: record for record in by_offset}.values())

    def _drop(self, record: HotRecord) -> None:
        self._floor[record.partition] = Offset(max(self._floor[record.partition], record.offset + 1))
        self._forget(record.embedding.post_id)

    def _forget(self, post_id: PostId) -> None:
        del self._held[post_id]
        self._ids.release(self._ids.find([post_id]))

    def floor(self) -> Offsets:
        return dict(self._floor)

    def search(self, queries: Sequence[HotQuery]) -> list[HotAnswer]:
        return [self._answer(query) for query in queries]

    def _answer(self, query: HotQuery) -> HotAnswer:
        posts = [post for post in self.posts(list(self._held), with_vectors=True) if post is not None]
        scored = [
            (-float(np.dot(post.vector, query.vector_D)), post.post_id, post.revision)
            for post in posts
            if post.vector is not None and _passes(post, query.filters)
        ]
        hits = sorted(scored)[: query.k]
        cold_posts = self.posts(self._ids.ids(query.cold_numbers))
        return HotAnswer(
            self._ids.find([post_id for _, post_id, _ in hits]),
            np.array([-score for score, _, _ in hits], np.float32),
            np.array([revision for _, _, revision in hits], np.int64),
            np.array([UNKNOWN if post is None else post.revision for post in cold_posts], np.int64),
            self.floor(),
        )

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        records = [self._held.get(post_id) for post_id in ids]
        posts = [None if record is None else stored_post(record.embedding) for record in records]
        return posts if with_vectors else [None if post is None else post._replace(vector=None) for post in posts]

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        return (post for post in self.posts(list(self._held)) if post is not None and not post.deleted)

    def count(self) -> int:
        return sum(not record.embedding.deleted for record in self._held.values())

    def num_tombstones(self) -> int:
        return sum(record.embedding.deleted for record in self._held.values())

    def save(self, folder: Path, moment: SnapshotMoment, *, timeout_s: float | None = None) -> Future[None]:
        (folder / "brute").write_bytes(pickle.dumps((self._dimension, self._held, self._floor, moment)))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def load(self, folder: Path) -> SnapshotMoment | None:
        if not (folder / "brute").exists():
            return None
        dimension, held, floor, moment = pickle.loads((folder / "brute").read_bytes())
        if dimension != self._dimension:
            raise SnapshotRefused(f"a snapshot of vectors of {dimension}; this tier holds vectors of {self._dimension}")
        self._held, self._floor = held, floor
        self._ids.intern(list(held))
        assert isinstance(moment, SnapshotMoment)
        return moment


def _passes(post: StoredPost, filters: Filters) -> bool:
    return (
        (not filters.languages or post.language in filters.languages)
        and (filters.created_after_us is None or post.created_at_us > filters.created_after_us)
        and (filters.created_before_us is None or post.created_at_us < filters.created_before_us)
        and post.author_id not in filters.exclude_authors
        and post.post_id not in filters.exclude_posts
        and _among(post.author_id, filters.only_authors)
        and _among(post.post_id, filters.only_posts)
    )


def _among(entity_id: str, ids: Collection[str] | None) -> bool:
    return ids is None or entity_id in ids
