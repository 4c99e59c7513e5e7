"""What the owner of the embedded engine keeps in memory about every point: its entity, the record that it was written
from, and its fields that filters compare.

The engine knows points by number only. This table assigns the numbers, and it has in arrays what the engine would have
to read from disk for every hit. So a search with filters needs no payload index, and a write needs no read. The table
is rebuilt from the stored heads at every start. A head is the small text that the engine stores with a point. Knows
neither the engine nor vectors. The owner guards the table with a lock.

Shapes: N point numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.revision_guard import Written
from indexer.string_codes import StringCodes
from indexer.tiers import Filters
from schemas.ids import Micros, Offset, Partition, Revision

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
"""(N,): True or False for every point number."""

FREE: Final = 0
LIVE: Final = 1
DELETED: Final = 2

_INITIAL_CAPACITY: Final = 4096
_COLUMNS: Final = (
    *("_state", "_complete", "_revision", "_partition", "_offset"),
    *("_written_at", "_created_at", "_author", "_language"),
)


class Head(NamedTuple):
    """The fields that are stored with every point, as one JSON array: a single string costs the engine a fifth of what
    nine fields cost."""

    entity_id: str
    revision: int
    deleted: bool
    written_at_us: int
    partition: int
    offset: int
    author_id: str = ""
    language: str | None = None
    created_at_us: int = 0


class PointTable:
    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._free: list[int] = []
        self._authors = StringCodes()
        self._languages = StringCodes()
        self._state = np.zeros(_INITIAL_CAPACITY, np.uint8)
        self._complete = np.zeros(_INITIAL_CAPACITY, np.bool_)
        self._revision = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._partition = np.zeros(_INITIAL_CAPACITY, np.int32)
        self._offset = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._written_at = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._created_at = np.zeros(_INITIAL_CAPACITY, np.int64)
        self._author = np.zeros(_INITIAL_CAPACITY, np.int32)
        self._language = np.zeros(_INITIAL_CAPACITY, np.int32)
        self.num_live = 0

    def __len__(self) -> int:
        """The highest number that was ever assigned, plus one."""
        return len(self._ids)

    @property
    def is_empty(self) -> bool:
        return not self._numbers

    @property
    def num_tombstones(self) -> int:
        """Deleted entities that have not been swept yet."""
        return len(self._numbers) - self.num_live

    def number(self, entity_id: str) -> int | None:
        return self._numbers.get(entity_id)

    def last_write(self, entity_id: str) -> Written | None:
        """The record than which a write must be newer. None for an entity that was never written.

        A point that was loaded at the start may be half written, if the owner was killed during a write. For a loaded
        point this is one offset less than the stored one, so that the repeated record is applied again and completes
        the point."""
        number = self._numbers.get(entity_id)
        if number is None:
            return None
        stored = self._written(number)
        return stored if self._complete[number] else stored._replace(offset=Offset(stored.offset - 1))

    def _written(self, number: int) -> Written:
        return Written(
            Revision(int(self._revision[number])),
            Partition(int(self._partition[number])),
            Offset(int(self._offset[number])),
        )

    def assign_number(self, entity_id: str) -> int:
        """The number of this entity, or a free number if it has none yet. `put` then adds the entity to the table."""
        number = self._numbers.get(entity_id)
        if number is not None:
            return number
        if self._free:
            return self._free.pop()
        self._ids.append("")
        self._grow(len(self._ids))
        return len(self._ids) - 1

    def release_number(self, number: int) -> None:
        """Call this after a failed write. If no entity was put under this number, the number is free again."""
        if self._state[number] == FREE:
            self._free.append(number)

    def load(self, numbers: Sequence[int], heads: Sequence[Head]) -> list[int]:
        """Adds points that the engine has stored; for the start. Returns the numbers of outdated points, which the
        caller has to remove from the engine.

        After a power cut an entity may be stored under two numbers: its tombstone was swept, it was written again under
        another number, and only the shard of the new number was flushed. The newest one counts."""
        ids = {head.entity_id for head in heads}
        if len(ids) == len(heads) and self._numbers.keys().isdisjoint(ids):
            self.put(numbers, heads, complete=False)
            return []
        outdated = []
        for number, head in zip(numbers, heads, strict=True):
            rival = self._numbers.get(head.entity_id)
            if rival is not None and self._rank(rival) >= (head.revision, head.offset):
                outdated.append(number)
                continue
            if rival is not None:
                self.remove([rival])
                outdated.append(rival)
            self.put([number], [head], complete=False)
        return outdated

    def put(self, numbers: Sequence[int], heads: Sequence[Head], *, complete: bool) -> None:
        """Adds or replaces points, each entity at most once. `complete`: the engine has surely written these points
        completely. Works column by column, so that a point costs a microsecond."""
        size = max(numbers, default=-1) + 1
        self._grow(size)
        self._ids.extend("" for _ in range(size - len(self._ids)))
        for number, head in zip(numbers, heads, strict=True):
            self._numbers[head.entity_id] = number
            self._ids[number] = head.entity_id
        rows = np.array(numbers, np.int64)
        deleted = np.array([head.deleted for head in heads], np.bool_)
        self.num_live += int(np.count_nonzero(~deleted)) - int(np.count_nonzero(self._state[rows] == LIVE))
        self._state[rows] = np.where(deleted, DELETED, LIVE)
        self._complete[rows] = complete
        self._revision[rows] = [head.revision for head in heads]
        self._partition[rows] = [head.partition for head in heads]
        self._offset[rows] = [head.offset for head in heads]
        self._written_at[rows] = [head.written_at_us for head in heads]
        self._created_at[rows] = [head.created_at_us for head in heads]
        self._author[rows] = [self._authors.code(head.author_id) for head in heads]
        self._language[rows] = [self._languages.code(head.language) for head in heads]

    def remove(self, numbers: Iterable[int]) -> None:
        """Call this when the points are gone from the engine. Their numbers are free again."""
        for number in numbers:
            self.num_live -= int(self._state[number] == LIVE)
            self._state[number] = FREE
            del self._numbers[self._ids[number]]
            self._ids[number] = ""
            self._free.append(number)

    def find_free_numbers(self) -> None:
        """Call this once, after the last `load`. Every number below the highest one that no stored point has is
        free."""
        self._free = np.flatnonzero(self._state[: len(self)] == FREE).tolist()

    def tombstones(self, older_than_us: Micros) -> list[int]:
        """The numbers of the deleted entities whose tombstone was written before this time."""
        size = len(self)
        old = (self._state[:size] == DELETED) & (self._written_at[:size] < older_than_us)
        return [int(number) for number in np.flatnonzero(old)]

    def live_mask(self) -> Mask:
        mask: Mask = self._state[: len(self)] == LIVE
        return mask

    def passing_mask(self, filters: Filters) -> Mask:
        """The live points that pass the filters."""
        size = len(self)
        mask = self.live_mask()
        if filters.languages:
            mask &= self._languages.among(self._language[:size], filters.languages)
        if filters.created_after_us is not None:
            mask &= self._created_at[:size] > filters.created_after_us
        if filters.created_before_us is not None:
            mask &= self._created_at[:size] < filters.created_before_us
        if filters.exclude_authors:
            mask &= ~self._authors.among(self._author[:size], filters.exclude_authors)
        if filters.only_authors is not None:
            mask &= self._authors.among(self._author[:size], filters.only_authors)
        if filters.exclude_posts:
            mask[self._known_numbers(filters.exclude_posts)] = False
        if filters.only_posts is not None:
            passing = np.zeros(size, np.bool_)
            passing[self._known_numbers(filters.only_posts)] = True
            mask &= passing
        return mask

    def _known_numbers(self, ids: Iterable[str]) -> list[int]:
        """The numbers of those entities that have one."""
        return [number for number in map(self._numbers.get, ids) if number is not None]

    def ids(self, numbers: Numbers) -> list[str]:
        return list(map(self._ids.__getitem__, numbers.tolist()))

    def revisions(self, numbers: Numbers) -> npt.NDArray[np.int64]:
        return self._revision[numbers]

    def heads(self, numbers: Sequence[int]) -> list[Head]:
        """The heads of the numbers that are not free."""
        return [self._head(number) for number in numbers if self._state[number] != FREE]

    def live_numbers(self) -> list[int]:
        numbers: list[int] = np.flatnonzero(self.live_mask()).tolist()
        return numbers

    def _rank(self, number: int) -> tuple[int, int]:
        """Grows with every record of one entity."""
        return int(self._revision[number]), int(self._offset[number])

    def _head(self, number: int) -> Head:
        return Head(
            self._ids[number],
            int(self._revision[number]),
            bool(self._state[number] == DELETED),
            int(self._written_at[number]),
            int(self._partition[number]),
            int(self._offset[number]),
            self._authors.string(int(self._author[number])) or "",
            self._languages.string(int(self._language[number])),
            int(self._created_at[number]),
        )

    def _grow(self, size: int) -> None:
        """Makes the arrays at least `size` long."""
        capacity = len(self._state)
        if size <= capacity:
            return
        for name in _COLUMNS:
            array: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(max(size, 2 * capacity) - capacity, array.dtype)]))
