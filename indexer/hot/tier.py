"""The hot tier: the tail of the log in memory. Owns the rule which record is a post's newest one, and how a batch of
queries is answered.

Beside it: `change_order.py` knows which post leaves next, `contents.py` what is in the slots and who sees it,
`matrix/` scans, `snapshot.py` writes files. Knows neither Kafka nor the device.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from indexer.best import best_k
from indexer.errors import SnapshotRefused
from indexer.hot import snapshot
from indexer.hot.batch import as_batch
from indexer.hot.change_order import ChangeOrder
from indexer.hot.columns import NO_SLOT, Columns
from indexer.hot.contents import Contents, Moment
from indexer.hot.matrix.devices import new_matrix
from indexer.hot.matrix.matrix import ScannedSlots
from indexer.hot.questions import Questions
from indexer.hot.slots import Slots
from indexer.id_table import UNKNOWN, IdTable
from indexer.records import check_vector
from indexer.settings import HotSettings
from indexer.tiers import HotAnswer, HotQuery, HotRecord, Offsets, SnapshotMoment, StoredPost
from schemas.ids import MemberId, Micros, PostId, Revision

MAX_QUERIES: Final = 64
"""Of one batch."""
_STEP: Final = 128
"""Records that are applied, and posts that are dropped, before other threads may go on: about a millisecond."""
_SCROLL_PAGE: Final = 1000


class MatrixHotTier:
    """Implements `HotTier`."""

    def __init__(self, dimension: int, settings: HotSettings, ids: IdTable) -> None:
        """`ids`: the table of the generation, which the tier shares with whoever asks it."""
        self._dimension = dimension
        self._capacity = settings.capacity
        self._window_us = settings.window_s * 1e6
        self._ids = ids
        self._settings = settings
        self._contents, self._order = self._nothing()
        self._num_held = 0

    def begin(self, floor: Offsets) -> None:
        for partition, offset in floor.items():
            if offset < self._order.floor(partition, offset):
                self._drop(self._order.pop_before(partition, float("inf")))
            self._order.set_floor(partition, offset)
            self._drop(self._order.pop_before(partition, offset))

    def apply(self, records: Sequence[HotRecord]) -> int:
        for record in records:
            check_vector(record.embedding, self._dimension)
        changed = 0
        for first in range(0, len(records), _STEP):
            changed += self._apply_step(records[first : first + _STEP])
            # Hands Python's lock to a waiting search, which would otherwise wait 5 ms for it.
            time.sleep(0)
        return changed

    def expire(self, now_us: Micros) -> int:
        dropped = self._drop(self._order.pop_older(now_us - self._window_us))
        self._contents.reclaim()
        self._contents.repair()
        return dropped

    def floor(self) -> Offsets:
        return self._contents.floor()

    def search(self, queries: Sequence[HotQuery]) -> list[HotAnswer]:
        if not queries:
            return []
        if len(queries) > MAX_QUERIES:
            raise ValueError(f"{len(queries)} queries; give at most {MAX_QUERIES}")
        contents = self._contents
        while True:
            questions = Questions(queries, contents)
            with contents.scanning(questions.numbers()) as (moment, view):
                if questions.looked_too_early(moment):
                    continue
                scanned = view.scan(questions.scans(moment.slots))
                cold_slots = questions.cold_slots(moment.slots)
                return [self._answer(moment, hits, cold) for hits, cold in zip(scanned, cold_slots, strict=True)]

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        posts: list[StoredPost | None] = [None] * len(ids)
        with self._contents.reading(self._ids.find(ids), timeout_s) as moment:
            held = np.flatnonzero(moment.slots != NO_SLOT)
            stored = self._stored(moment.columns, moment.slots[held], with_vectors=with_vectors)
            for row, post in zip(held.tolist(), stored, strict=True):
                posts[row] = post
        return posts

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        ids: list[list[PostId]] = []
        with self._contents.holding(timeout_s) as (moment, slots):
            live = slots[~moment.columns.deleted[slots]]
            for first in range(0, len(live), _SCROLL_PAGE):
                ids.append(self._ids.ids(moment.columns.number[live[first : first + _SCROLL_PAGE]]))
        pages = (self.posts(page, timeout_s=timeout_s) for page in ids)
        return (post for page in pages for post in page if post is not None and not post.deleted)

    def count(self) -> int:
        return self._contents.count()

    def num_tombstones(self) -> int:
        return self._contents.num_tombstones()

    def save(self, folder: Path, moment: SnapshotMoment, *, timeout_s: float | None = None) -> Future[None]:
        places = self._order.places
        return snapshot.save(folder, moment, self._dimension, self._contents, places, timeout_s=timeout_s)

    def load(self, folder: Path) -> SnapshotMoment | None:
        contents, order = self._nothing()
        try:
            moment = snapshot.load(folder, self._dimension, self._capacity, contents, order)
        except SnapshotRefused:
            contents.discard()
            raise
        if moment is not None:
            self._contents, self._order, self._num_held = contents, order, contents.count_held()
        return moment

    def release_ids(self) -> None:
        """Gives the numbers of all posts back to the table of ids. Call it when nobody uses the tier any more, and
        others go on using the table."""
        self._contents.reclaim()
        self._contents.discard()

    def _nothing(self) -> tuple[Contents, ChangeOrder]:
        settings = self._settings
        matrix = new_matrix(self._dimension, settings.capacity, settings.device, settings.threads)
        return Contents(settings.capacity, self._ids, matrix), ChangeOrder()

    def _apply_step(self, records: Sequence[HotRecord]) -> int:
        slots = self._contents.write(as_batch([record.embedding for record in records], self._dimension))
        self._order.reserve(int(slots.max()) + 1)
        step = _Step(self._contents, self._order, self._capacity - self._num_held)
        step.apply(records, slots)
        self._num_held = self._capacity - step.room
        self._contents.show(step.came, step.gone, step.unused, self._order.floors())
        return len(step.came)

    def _drop(self, slots: Iterator[int]) -> int:
        """Takes the slots out of sight as the order gives them."""
        dropped = 0
        while gone := list(islice(slots, _STEP)):
            self._contents.show([], gone, [], self._order.floors())
            dropped += len(gone)
            time.sleep(0)
        self._num_held -= dropped
        if not dropped:
            self._contents.show([], [], [], self._order.floors())
        return dropped

    def _answer(self, moment: Moment, hits: ScannedSlots, cold_slots: Slots) -> HotAnswer:
        columns = moment.columns
        slots, scores = hits
        numbers = columns.number[slots]
        if (np.diff(scores) == 0).any():
            rows = best_k(scores, len(scores), self._ids.ids(numbers))
            slots, scores, numbers = slots[rows], scores[rows], numbers[rows]
        held = cold_slots != NO_SLOT
        cold_revisions = np.full(len(cold_slots), UNKNOWN, np.int64)
        cold_revisions[held] = columns.revision[cold_slots[held]]
        return HotAnswer(numbers, scores, columns.revision[slots], cold_revisions, moment.floor)

    def _stored(self, columns: Columns, slots: Slots, *, with_vectors: bool) -> Iterable[StoredPost]:
        batch = self._contents.batch(columns, slots, with_vectors=with_vectors)
        for row, (post_id, deleted) in enumerate(zip(batch.ids, batch.deleted.tolist(), strict=True)):
            yield StoredPost(
                PostId(post_id),
                Revision(int(batch.revisions[row])),
                deleted,
                MemberId(batch.authors[row]),
                batch.languages[row],
                Micros(int(batch.created_at_us[row])),
                batch.vectors_KD[row] if with_vectors and not deleted else None,
            )


class _Step:
    """What a step of records changes. Decides for one record after the other."""

    def __init__(self, contents: Contents, order: ChangeOrder, room: int) -> None:
        self.came: list[int] = []
        self.gone: list[int] = []
        """Slots of posts that were replaced, or dropped because the tier is full."""
        self.unused: list[int] = []
        """Slots of records that change nothing."""
        self.room = room
        self._contents = contents
        self._order = order

    def apply(self, records: Sequence[HotRecord], slots: Slots) -> None:
        columns = self._contents.columns
        numbers = columns.number[slots]
        held_in = dict(zip(numbers.tolist(), self._contents.slots_of(numbers).tolist(), strict=True))
        revision_at, number_at = columns.revision.data, columns.number.data
        for record, number, slot in zip(records, numbers.tolist(), slots.tolist(), strict=True):
            partition, offset, at_us = record.partition, record.offset, record.at_us
            before = held_in[number]
            if offset < self._order.floor(partition, offset):
                self.unused.append(slot)
            elif before != NO_SLOT and (
                revision_at[before] > revision_at[slot]
                or (revision_at[before] == revision_at[slot] and not self._order.is_later(before, partition, offset))
            ):
                self._order.renew(before, partition, offset, at_us)
                self.unused.append(slot)
            else:
                if before != NO_SLOT:
                    self._order.remove(before)
                    self.gone.append(before)
                elif self.room == 0:
                    oldest = self._order.pop_oldest()
                    held_in[number_at[oldest]] = NO_SLOT
                    self.gone.append(oldest)
                else:
                    self.room -= 1
                self._order.append(slot, partition, offset, at_us)
                held_in[number] = slot
                self.came.append(slot)
