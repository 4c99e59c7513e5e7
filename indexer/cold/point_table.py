"""What the owner of the embedded engine keeps in memory of every point: whose it is, its revision, what filters ask.

The engine knows points by number. The ledger gives the numbers and answers from arrays what the engine would have to
read from disk for every hit: a search with filters costs no payload index, a write no read. It is rebuilt from the
stored heads at start. Knows neither the engine nor vectors; its owner guards it with one lock.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.string_codes import StringCodes
from indexer.tiers import Filters
from schemas.ids import Micros, Revision

Numbers = npt.NDArray[np.int64]
Passing = npt.NDArray[np.bool_]

FREE: Final = 0
LIVE: Final = 1
DELETED: Final = 2

_FIRST_ROOM: Final = 4096


class Head(NamedTuple):
    """What is stored with every point, as one JSON array: one string costs the engine a fifth of nine fields."""

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
        self._state = np.zeros(_FIRST_ROOM, np.uint8)
        self._sure = np.zeros(_FIRST_ROOM, np.bool_)
        self._revision = np.zeros(_FIRST_ROOM, np.int64)
        self._written_at = np.zeros(_FIRST_ROOM, np.int64)
        self._created_at = np.zeros(_FIRST_ROOM, np.int64)
        self._author = np.zeros(_FIRST_ROOM, np.int32)
        self._language = np.zeros(_FIRST_ROOM, np.int32)
        self.live = 0

    def __len__(self) -> int:
        """One more than the highest number ever given."""
        return len(self._ids)

    def number(self, entity_id: str) -> int | None:
        return self._numbers.get(entity_id)

    def revision(self, entity_id: str) -> Revision:
        """0 for what was never written."""
        number = self._numbers.get(entity_id)
        return Revision(0 if number is None else int(self._revision[number]))

    def guard(self, entity_id: str) -> Revision:
        """What a write must be above. What was loaded at start may be half written, if the owner was killed within a
        write: the same revision is taken once more, so that a repeated record mends it."""
        number = self._numbers.get(entity_id)
        if number is None:
            return Revision(0)
        return Revision(int(self._revision[number]) - (not self._sure[number]))

    def give(self, entity_id: str) -> int:
        """The number of an entity, a new one where it has none. `put` makes it known."""
        number = self._numbers.get(entity_id)
        if number is not None:
            return number
        if self._free:
            return self._free.pop()
        self._ids.append("")
        self._make_room(len(self._ids))
        return len(self._ids) - 1

    def give_back(self, number: int) -> None:
        """A number that was given and never put: the write failed."""
        if self._state[number] == FREE:
            self._free.append(number)

    def load(self, numbers: Sequence[int], heads: Sequence[Head]) -> list[int]:
        """Puts what is stored, at the start. Returns numbers whose points are to be removed from the engine.

        After a power cut an entity may be stored at two numbers: its tombstone was swept and it was written again at
        another number, but only that other shard was flushed. The newest revision counts."""
        ids = {head.entity_id for head in heads}
        if len(ids) == len(heads) and self._numbers.keys().isdisjoint(ids):
            self.put(numbers, heads, sure=False)
            return []
        outdated = []
        for number, head in zip(numbers, heads, strict=True):
            rival = self._numbers.get(head.entity_id)
            if rival is not None and self._revision[rival] >= head.revision:
                outdated.append(number)
                continue
            if rival is not None:
                self.remove([rival])
                outdated.append(rival)
            self.put([number], [head], sure=False)
        return outdated

    def put(self, numbers: Sequence[int], heads: Sequence[Head], *, sure: bool) -> None:
        """Column by column: a point costs a microsecond. No entity comes twice."""
        size = max(numbers, default=-1) + 1
        self._make_room(size)
        self._ids.extend("" for _ in range(size - len(self._ids)))
        for number, head in zip(numbers, heads, strict=True):
            self._numbers[head.entity_id] = number
            self._ids[number] = head.entity_id
        rows = np.array(numbers, np.int64)
        deleted = np.array([head.deleted for head in heads], np.bool_)
        self.live += int(np.count_nonzero(~deleted)) - int(np.count_nonzero(self._state[rows] == LIVE))
        self._state[rows] = np.where(deleted, DELETED, LIVE)
        self._sure[rows] = sure
        self._revision[rows] = [head.revision for head in heads]
        self._written_at[rows] = [head.written_at_us for head in heads]
        self._created_at[rows] = [head.created_at_us for head in heads]
        self._author[rows] = [self._authors.code(head.author_id) for head in heads]
        self._language[rows] = [self._languages.code(head.language) for head in heads]

    def remove(self, numbers: Iterable[int]) -> None:
        """The points are gone from the engine; their numbers may be given again."""
        for number in numbers:
            self.live -= int(self._state[number] == LIVE)
            self._state[number] = FREE
            del self._numbers[self._ids[number]]
            self._ids[number] = ""
            self._free.append(number)

    def find_gaps(self) -> None:
        """After the load: numbers that no stored point has may be given."""
        self._free = np.flatnonzero(self._state[: len(self)] == FREE).tolist()

    def tombstones(self, older_than_us: Micros) -> list[int]:
        size = len(self)
        old = (self._state[:size] == DELETED) & (self._written_at[:size] < older_than_us)
        return [int(number) for number in np.flatnonzero(old)]

    def is_live(self) -> Passing:
        """For every number."""
        live: Passing = self._state[: len(self)] == LIVE
        return live

    def passing(self, filters: Filters) -> Passing:
        """For every number, whether it is live and passes."""
        size = len(self)
        passing = self.is_live()
        if filters.languages:
            passing &= self._languages.among(self._language[:size], filters.languages)
        if filters.created_after_us is not None:
            passing &= self._created_at[:size] > filters.created_after_us
        if filters.exclude_authors:
            passing &= ~self._authors.among(self._author[:size], filters.exclude_authors)
        for post_id in filters.exclude_posts:
            number = self._numbers.get(post_id)
            if number is not None:
                passing[number] = False
        return passing

    def ids(self, numbers: Numbers) -> list[str]:
        return [self._ids[number] for number in numbers.tolist()]

    def revisions(self, numbers: Numbers) -> list[Revision]:
        revisions: list[Revision] = self._revision[numbers].tolist()
        return revisions

    def heads(self, numbers: Sequence[int]) -> list[Head]:
        """Without the place of the record, which only the stored head has."""
        return [self._head(number) for number in numbers if self._state[number] != FREE]

    def live_numbers(self) -> list[int]:
        numbers: list[int] = np.flatnonzero(self._state[: len(self)] == LIVE).tolist()
        return numbers

    def _head(self, number: int) -> Head:
        return Head(
            self._ids[number],
            int(self._revision[number]),
            bool(self._state[number] == DELETED),
            int(self._written_at[number]),
            -1,
            -1,
            self._authors.name(int(self._author[number])) or "",
            self._languages.name(int(self._language[number])),
            int(self._created_at[number]),
        )

    def _make_room(self, size: int) -> None:
        room = len(self._state)
        if size <= room:
            return
        for name in ("_state", "_sure", "_revision", "_written_at", "_created_at", "_author", "_language"):
            array: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(max(size, 2 * room) - room, array.dtype)]))
