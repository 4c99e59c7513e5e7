"""What is in the slots of the hot tier, and who sees it when. Knows neither the log nor which revision is newer.

A post is written into a free slot, which nobody looks at. Then, within the lock, all slots of a step come into sight
and those that they replace go out of sight, so that a reader sees a step in all parts or in none. Within the lock
nothing is done for single posts, and nothing is waited for.

Shapes: S slots, K slots or numbers of one call.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Condition
from typing import Final, NamedTuple

import numpy as np

from indexer.errors import TierLate
from indexer.hot.batch import Batch
from indexer.hot.columns import Columns, SlotOfNumber
from indexer.hot.matrix.arrays import grown
from indexer.hot.matrix.matrix import Fields, Matrix, View
from indexer.hot.slots import SlotPool, Slots, with_spare
from indexer.id_table import IdTable
from indexer.string_codes import StringCodes
from indexer.tiers import Numbers, Offsets

_RECLAIMED_STEPS: Final = 2
"""Before each step so many earlier ones are cleared: more than come, and not all at once if very many wait."""
_LOOK_AGAIN_S: Final = 0.05
"""A reader that ends while others hold the lock cannot say so, and the writer sees it after this time at the latest."""


class Moment(NamedTuple):
    """What one reader sees. It holds until the reader ends."""

    slots: Slots
    """Of the numbers that the reader asked about; -1 for a post that is not held."""
    columns: Columns
    num_slots: int
    floor: Offsets
    step: int
    """How many steps were shown before."""


class Contents:
    """One thread writes: it calls `write`, `show` and `reclaim`. Many threads read at the same time."""

    def __init__(self, capacity: int, ids: IdTable, matrix: Matrix) -> None:
        self.ids = ids
        self.authors = IdTable()
        self.languages = StringCodes()
        self._matrix = matrix
        self._changed = Condition()
        """The lock of all that readers see; notified when a reader has ended."""
        self._pool = SlotPool(with_spare(capacity))
        self._columns = Columns.empty()
        self._slot_of = SlotOfNumber()
        self._held = np.zeros(0, np.bool_)
        self._floor: Offsets = {}
        self._num_slots = 0
        self._num_live = 0
        self._num_tombstones = 0
        self.step = 0
        """How many steps were shown. Any thread may read it."""

    @property
    def columns(self) -> Columns:
        """For the writer."""
        return self._columns

    def slots_of(self, numbers: Numbers) -> Slots:
        """For the writer."""
        return self._slot_of.get(numbers)

    def floor(self) -> Offsets:
        return self._floor

    def count(self) -> int:
        return self._num_live

    def num_tombstones(self) -> int:
        return self._num_tombstones

    def count_held(self) -> int:
        """Live and deleted posts. For the writer."""
        return int(np.count_nonzero(self._held))

    def repair(self) -> None:
        """Gets a device that failed to work again, if that is possible. For the writer."""
        self._matrix.repair()

    def write(self, batch: Batch) -> Slots:
        """Puts the posts into free slots and returns these. Nobody sees the posts before `show`. Waits for readers if
        they still look at all spare slots."""
        for _ in range(_RECLAIMED_STEPS):
            self._reclaim_step()
        slots = self._take(len(batch.ids))
        numbers = self.ids.intern(batch.ids)
        self._slot_of.reserve(numbers)
        self._columns.number[slots] = numbers
        self._columns.revision[slots] = batch.revisions
        self._columns.deleted[slots] = batch.deleted
        authors, languages = self.authors.intern(batch.authors), self.languages.codes(batch.languages)
        fields = Fields(batch.created_at_us, authors, languages)
        self._matrix.put(slots, batch.vectors_KD, fields)
        return slots

    def show(self, came: Sequence[int], gone: Sequence[int], unused: Sequence[int], floor: Offsets) -> None:
        """Readers that begin from now on see the posts in the slots `came`, and none in the slots `gone`. A slot may be
        in both: then it was replaced within the step. `unused` slots were written in vain."""
        replaced = set(came).intersection(gone)
        new = np.array([slot for slot in came if slot not in replaced], np.int64)
        old = np.array([slot for slot in gone if slot not in replaced], np.int64)
        blank = np.array([*gone, *unused], np.int64)
        number, deleted = self._columns.number, self._columns.deleted
        new_live = new[~deleted[new]]
        num_old_live = int(np.count_nonzero(~deleted[old]))
        num_live = self._num_live + len(new_live) - num_old_live
        num_tombstones = self._num_tombstones + (len(new) - len(new_live)) - (len(old) - num_old_live)
        flip = self._matrix.flipping(new_live, old)
        with self._changed:
            flip()
            self._held[old] = False
            self._held[new] = True
            self._slot_of.set(number[old], np.full(len(old), -1))
            self._slot_of.set(number[new], new)
            self._pool.blank(blank)
            self._num_slots, self._floor = self._pool.num_used, floor
            self._num_live, self._num_tombstones = num_live, num_tombstones
            self.step += 1

    def reclaim(self) -> None:
        """Clears all slots that went out of sight and that no reader looks at any more."""
        while self._reclaim_step():
            time.sleep(0)

    def _reclaim_step(self) -> bool:
        """Clears those that went out of sight in one step. False if there are none."""
        with self._changed:
            slots = self._pool.clearable()
        if len(slots):
            self._matrix.clear(slots)
            self.ids.release(self._columns.number[slots])
            self.authors.release(self._matrix.fields(slots).author)
            self._pool.give_back(slots)
        return len(slots) > 0

    def discard(self) -> None:
        """Releases the numbers of all posts. The contents are of no use any more."""
        self.ids.release(self._columns.number[np.flatnonzero(self._held)])

    @contextmanager
    def reading(self, numbers: Numbers, timeout_s: float | None = None) -> Iterator[Moment]:
        """Raises TierLate if it cannot begin within this time."""
        with self._locked(timeout_s):
            moment, reader = self._moment(numbers), self._pool.begin_reading()
        try:
            yield moment
        finally:
            self._end(reader)

    @contextmanager
    def scanning(self, numbers: Numbers) -> Iterator[tuple[Moment, View]]:
        with self._changed:
            view = self._matrix.view(self._num_slots)
            moment, reader = self._moment(numbers), self._pool.begin_reading()
        try:
            yield moment, view
        finally:
            self._end(reader)

    @contextmanager
    def holding(self, timeout_s: float | None = None) -> Iterator[tuple[Moment, Slots]]:
        """The moment, and all slots that are held at it. Raises TierLate if it cannot begin within this time."""
        with self._locked(timeout_s):
            held = self._held[: self._num_slots].copy()
            moment, reader = self._moment(np.empty(0, np.int32)), self._pool.begin_reading()
        try:
            yield moment, np.flatnonzero(held)
        finally:
            self._end(reader)

    def batch(self, columns: Columns, slots: Slots, *, with_vectors: bool = True) -> Batch:
        """The posts in slots that a reader looks at. Without vectors these have no dimensions."""
        fields = self._matrix.fields(slots)
        return Batch(
            ids=self.ids.ids(columns.number[slots]),
            authors=self.authors.ids(fields.author),
            languages=[self.languages.string(code) for code in fields.language.tolist()],
            revisions=columns.revision[slots],
            deleted=columns.deleted[slots],
            created_at_us=fields.created_at_us,
            vectors_KD=self._matrix.vectors(slots) if with_vectors else np.empty((len(slots), 0), np.float32),
        )

    @contextmanager
    def _locked(self, timeout_s: float | None) -> Iterator[None]:
        """Raises TierLate if it does not get the lock in time: a device that hangs may hold up whoever has it. None:
        waits for as long as that takes."""
        if not self._changed.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise TierLate("the hot tier did not answer in time")
        try:
            yield
        finally:
            self._changed.release()

    def _moment(self, numbers: Numbers) -> Moment:
        return Moment(self._slot_of.get(numbers), self._columns, self._num_slots, self._floor, self.step)

    def _end(self, reader: int) -> None:
        """Does not wait for the lock, so that no reader is late because of it."""
        self._pool.end_reading(reader)
        if self._changed.acquire(blocking=False):
            try:
                self._changed.notify()
            finally:
                self._changed.release()

    def _take(self, count: int) -> Slots:
        while not self._pool.has(count):
            with self._changed:
                self._changed.wait_for(self._pool.is_clearable, _LOOK_AGAIN_S)
            self._reclaim_step()
        slots = self._pool.take(count)
        self._matrix.reserve(self._pool.num_used)
        self._columns = self._columns.grown(self._pool.num_used)
        self._held = grown(self._held, self._pool.num_used)
        return slots
