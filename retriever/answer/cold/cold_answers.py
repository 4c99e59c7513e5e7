"""Answers of the cold tier as columns, and the references by which their posts keep their numbers in the id table."""

from collections import deque
from typing import Final

import numpy as np

from indexer.id_table import IdTable
from indexer.tiers import ColdHits, Numbers, Offsets
from retriever.answer.merge import NO_COLD_COLUMNS, ColdColumns

CANDIDATE_BYTES: Final = 16
"""A number, a score and a revision."""
_OVERHEAD_BYTES: Final = 600
"""Of one answer beside its columns: three array objects, its key, its places in dictionaries."""


class ColdAnswer:
    """What the cold tier answered once. Never changes, so that any number of threads may read it.

    It holds a reference to each of its numbers. When no thread has the answer any more, they are given back.
    """

    __slots__ = ("_dropped", "columns", "position")

    def __init__(self, columns: ColdColumns, position: Offsets, dropped: "deque[Numbers]") -> None:
        """All records before `position` were written before the search began."""
        self.columns = columns
        self.position = position
        self._dropped = dropped

    def __del__(self) -> None:
        # The references are only noted here: this may run in any thread and within any lock, also that of the table.
        self._dropped.append(self.columns.numbers_C)

    @property
    def complete(self) -> bool:
        """Whether these are all posts that pass the filters."""
        return len(self.columns.numbers_C) < self.columns.limit

    @property
    def num_bytes(self) -> int:
        return _OVERHEAD_BYTES + CANDIDATE_BYTES * len(self.columns.numbers_C)


class ColdAnswerMaker:
    """Makes answers of the hits that the cold tier returns. Any thread may call the methods."""

    def __init__(self, ids: IdTable) -> None:
        self._ids = ids
        self._dropped: deque[Numbers] = deque()
        self._last_position: Offsets = {}
        self.nothing = ColdAnswer(NO_COLD_COLUMNS, {}, deque())
        """The cold tier of a corpus without records. It is right wherever the hot tier holds everything."""

    def make(self, hits: ColdHits, limit: int) -> ColdAnswer:
        """Of a search for `limit` hits."""
        self.release_dropped()
        numbers = self._ids.intern(hits.post_ids)
        # Copies, because a view would keep the larger array alive from which it was cut.
        scores, revisions = np.array(hits.scores, np.float32), np.array(hits.revisions, np.int64)
        columns = ColdColumns(numbers, scores, revisions, limit)
        return ColdAnswer(columns, self._shared(hits.position), self._dropped)

    def release_dropped(self) -> None:
        """Gives the numbers of answers that nobody holds any more back to the table."""
        while self._dropped:
            try:
                numbers = self._dropped.popleft()
            except IndexError:  # another thread was quicker
                return
            self._ids.release(numbers)

    def _shared(self, position: Offsets) -> Offsets:
        """The same object for equal positions, so that a thousand answers in a row do not hold a thousand mappings."""
        if position != self._last_position:
            self._last_position = dict(position)
        return self._last_position
