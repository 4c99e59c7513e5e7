"""The cold tier on the embedded Qdrant engine, in the process of its one owner.

Owns the shards and the point tables of both kinds, and the order in which they change. One lock guards them: the engine
holds the GIL during every call, so searches wait for each other and for writes anyway. Long work is therefore cut into
short parts, and searches run between them. Knows no topic.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from threading import TIMEOUT_MAX, Lock
from typing import Final, cast

import numpy as np
import structlog

from indexer.best import best_k
from indexer.cold.deadline import Deadline
from indexer.cold.edge import shards
from indexer.cold.edge.folder import check_manifest, lock
from indexer.cold.edge.point_table import PointTable
from indexer.cold.edge.points import decode_head, head_of, to_member, to_point, to_post
from indexer.cold.edge.shards import Shards
from indexer.errors import TierLate, TierUnavailable
from indexer.records import check_vector, cold_hits
from indexer.revision_guard import newest_records
from indexer.settings import ColdSettings
from indexer.tiers import (
    NO_FILTERS,
    Beat,
    Clock,
    ColdHits,
    ColdQuery,
    Filters,
    IndexRecord,
    Offsets,
    StoredMember,
    StoredPost,
    no_beat,
)
from schemas.embeddings import Vector
from schemas.ids import Generation, Kind, MemberId, Micros, PostId
from schemas.times import now_us

_WRITE_POINTS: Final = 200
"""Written at once, before searches may go on: about 8 ms."""
_START_REWRITES_FOR_S: Final = 30.0
"""After this time a sweep starts no further rewrite, because the index loop waits for the sweep. The rewrite of a full
shard with vectors of 128 numbers took 5.0 s."""
_WARN_AT_SHARE: Final = 0.75
"""A warning is logged when this share of `erase_within_s` has passed, while there is still time to help."""
_MAX_TOGETHER: Final = 6
"""At most so many queries are searched together: all vectors of one member. Others wait for them."""
_EXHAUSTED: Final = object()
_LOAD_PAGE: Final = 5_000
_SCROLL_PAGE: Final = 2_000

log = structlog.get_logger(__name__)


class EdgeColdTier:
    """Implements `ColdTier`. After a kill the records since the last flush have to be written again. After each
    opening, the first repeat of the stored record counts as a change."""

    def __init__(
        self,
        folder: Path,
        generation: Generation,
        dimension: int,
        settings: ColdSettings,
        clock: Clock = now_us,
        *,
        erase_within_s: float = 24 * 3600,
    ) -> None:
        """Raises TierRefused for a folder of another generation, TierUnavailable if another process owns it."""
        self._dimension = dimension
        self._clock = clock
        self._erase_within_s = erase_within_s
        self._lock = Lock()
        self._position: Offsets = {}
        """Replaced as a whole, never changed."""
        self._folder_lock = lock(folder)
        manifest = {
            "generation": generation,
            "dimension": dimension,
            "quantize": settings.quantize,
            "shard_points": shards.SHARD_POINTS,
        }
        try:
            check_manifest(folder, manifest)
            self._posts = _PointStore(Shards(folder / "posts", dimension, quantize=settings.quantize, clock=clock))
            self._members = _PointStore(Shards(folder / "members", dimension, quantize=False, clock=clock))
        except BaseException:
            os.close(self._folder_lock)
            raise

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        for record in records:
            check_vector(record.embedding, self._dimension)
        store = self._store(kind)
        to_write, num_changes = newest_records(records, store.table.last_write, again=again)
        now = self._clock()
        for start in range(0, len(to_write), _WRITE_POINTS):
            with self._lock:
                store.write(to_write[start : start + _WRITE_POINTS], now)
        with self._lock:
            store.shards.build_segments()
        return num_changes

    def flush(self) -> None:
        for store in (self._posts, self._members):
            with self._lock:
                store.shards.flush()

    def reached(self, offsets: Offsets) -> None:
        self._position = {**self._position, **offsets}

    def is_empty(self) -> bool:
        return self._posts.table.is_empty and self._members.table.is_empty

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        return self._search([ColdQuery(query_D, k, filters)], timeout_s)[0]

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        """Queries that follow each other and have the same filters, as those of one member, are scored together: three
        take as long as two. Between such groups others get their turn."""
        deadline = Deadline(math.inf if timeout_s is None else timeout_s, "the embedded cold tier")
        answers: list[ColdHits] = []
        for (exact, _), group in groupby(queries, lambda query: (query.exact, query.filters)):
            if exact:
                answers += [self._search_exactly(query, deadline) for query in group]
            else:
                together = list(group)
                for first in range(0, len(together), _MAX_TOGETHER):
                    answers += self._search(together[first : first + _MAX_TOGETHER], deadline.left_s())
        return answers

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        return self._position

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        table = self._posts.table
        with self._locked(timeout_s):
            numbers = [table.number(post_id) for post_id in ids]
            known = [number for number in numbers if number is not None]
            heads = dict(zip(known, table.heads(known), strict=True))
            points = self._posts.shards.get(known, vectors=True) if with_vectors else {}
        vectors = {number: point.vector for number, point in points.items()}
        return [None if number is None else to_post(heads[number], vectors.get(number)) for number in numbers]

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        with self._locked(timeout_s):
            numbers = [self._members.table.number(member_id) for member_id in ids]
            known = [number for number in numbers if number is not None]
            points = self._members.shards.get(known, vectors=True)
        return [None if number is None else to_member(points[number]) for number in numbers]

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        with self._locked(timeout_s):
            numbers = self._posts.table.live_numbers()
        for start in range(0, len(numbers), _SCROLL_PAGE):
            with self._locked(timeout_s):
                heads = self._posts.table.heads(numbers[start : start + _SCROLL_PAGE])
            yield from (to_post(head, None) for head in heads if not head.deleted)

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        return self._store(kind).table.num_live

    def num_tombstones(self, kind: Kind) -> int:
        """Any thread may call this."""
        return self._store(kind).table.num_tombstones

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        swept = sum(self._sweep(store, older_than_us, beat) for store in (self._posts, self._members))
        self._rewrite_due_shards(beat)
        return swept

    def oldest_pending_erasure_s(self) -> float:
        """Seconds since the oldest deletion whose vector is still in the files; 0 if there is none. Any thread may call
        this."""
        deleted_at = [at for store in (self._posts, self._members) for at in store.shards.pending_erasures().values()]
        return max(0.0, (self._clock() - min(deleted_at)) / 1e6) if deleted_at else 0.0

    def close(self) -> None:
        with self._lock:
            self._posts.shards.close()
            self._members.shards.close()
            os.close(self._folder_lock)

    def _sweep(self, store: "_PointStore", older_than_us: Micros, beat: Beat) -> int:
        tombstones = store.table.tombstones(older_than_us)
        for start in range(0, len(tombstones), _WRITE_POINTS):
            with self._lock:
                numbers = tombstones[start : start + _WRITE_POINTS]
                store.shards.remove(numbers)
                store.table.remove(numbers)
            beat()
        return len(tombstones)

    def _rewrite_due_shards(self, beat: Beat) -> None:
        """Erases deleted vectors from the files. Rewrites shards until the time is used up, the shard with the oldest
        deletion first. If a rewrite fails, the next shards are still rewritten. Raises the last TierUnavailable of a
        rewrite at the end."""
        until = time.monotonic() + _START_REWRITES_FOR_S
        failure: TierUnavailable | None = None
        for _, shard_id, shards_of_kind in self._due_rewrites():
            try:
                self._rewrite(shards_of_kind, shard_id, beat)
            except TierUnavailable as error:
                failure = error
            if time.monotonic() >= until:
                break
        oldest_s = self.oldest_pending_erasure_s()
        if oldest_s > _WARN_AT_SHARE * self._erase_within_s:
            log.warning(
                "deleted vectors may stay in the files for longer than kafka.erase_within_s; "
                "see that sweeps succeed, or give the cold tier a faster disk",
                oldest_deletion_s=round(oldest_s),
                erase_within_s=self._erase_within_s,
            )
        if failure is not None:
            raise failure

    def _due_rewrites(self) -> list[tuple[Micros, int, Shards]]:
        """Each shard that is to be rewritten: the time of its oldest deletion, its id, and the `Shards` that it belongs
        to. The oldest deletion comes first. A deletion is due after half of `erase_within_s`."""
        due_before = self._clock() - self._erase_within_s / 2 * 1e6
        due = [
            (deleted_at, shard_id, store.shards)
            for store in (self._posts, self._members)
            for shard_id, deleted_at in store.shards.pending_erasures().items()
            if deleted_at <= due_before
        ]
        return sorted(due, key=lambda rewrite: rewrite[:2])

    def _rewrite(self, shards_of_kind: Shards, shard_id: int, beat: Beat) -> None:
        with closing(shards_of_kind.rewrite(shard_id)) as steps:
            done = False
            while not done:
                with self._lock:
                    done = next(steps, _EXHAUSTED) is _EXHAUSTED
                beat()

    @contextmanager
    def _locked(self, timeout_s: float | None) -> Iterator[None]:
        """Holds the lock. Raises TierLate if it is not free within that time."""
        if not self._lock.acquire(timeout=-1 if timeout_s is None else min(max(0.0, timeout_s), TIMEOUT_MAX)):
            raise TierLate(f"the embedded cold tier was busy for {timeout_s:g} s")
        try:
            yield
        finally:
            self._lock.release()

    def _search(self, queries: Sequence[ColdQuery], timeout_s: float | None) -> list[ColdHits]:
        """All have the same filters."""
        table, filters = self._posts.table, queries[0].filters
        vectors, ks = [query.vector_D for query in queries], [query.k for query in queries]
        with self._locked(timeout_s):
            # Before the look at the points, because they may only be newer than the position.
            position = self._position
            live = table.live_mask()
            passing = live if filters == NO_FILTERS else table.passing_mask(filters)
            found = self._posts.shards.search(vectors, ks, live, passing)
            columns = [(table.ids(hits.numbers), hits.scores, table.revisions(hits.numbers)) for hits in found]
        return [cold_hits(cast("list[PostId]", ids), scores, revs, position) for ids, scores, revs in columns]

    def _search_exactly(self, query: ColdQuery, deadline: Deadline) -> ColdHits:
        """Gives the lock back after each shard, so that no other search waits for more than one of them. A post stays
        in its shard, so none is missed."""
        table, shards, position = self._posts.table, self._posts.shards, self._position
        ids, scores, revisions, shard_id = list[str](), [np.empty(0, np.float32)], [np.empty(0, np.int64)], 0
        while shard_id < shards.num_shards:
            with self._locked(deadline.left_s()):
                live = table.live_mask()
                passing = live if query.filters == NO_FILTERS else table.passing_mask(query.filters)
                hits = shards.search_exactly(shard_id, query.vector_D, query.k, live, passing)
                ids += table.ids(hits.numbers)
                scores.append(hits.scores)
                revisions.append(np.asarray(table.revisions(hits.numbers), np.int64))
            shard_id += 1
        all_scores = np.concatenate(scores)
        best = best_k(all_scores, query.k)
        best_ids = [PostId(ids[row]) for row in best.tolist()]
        return cold_hits(best_ids, all_scores[best], np.concatenate(revisions)[best], position)

    def _store(self, kind: Kind) -> "_PointStore":
        return self._posts if kind == "post" else self._members


class _PointStore:
    """The shards of one kind and their point table. A write changes the shards first, then the table."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.table = PointTable()
        outdated: list[int] = []
        for page in shards.heads(_LOAD_PAGE):
            outdated += self.table.load([number for number, _ in page], [decode_head(head) for _, head in page])
        shards.remove(outdated, may_have_vectors=True)
        self.table.find_free_numbers()

    def write(self, records: Sequence[IndexRecord], now: Micros) -> None:
        numbers = [self.table.assign_number(record.embedding.entity_id) for record in records]
        heads = [head_of(record, now) for record in records]
        points = [to_point(*parts) for parts in zip(numbers, records, heads, strict=True)]
        try:
            self.shards.upsert(points)
        except TierUnavailable:
            for number in numbers:
                self.table.release_number(number)
            raise
        self.table.put(numbers, heads, complete=True)
