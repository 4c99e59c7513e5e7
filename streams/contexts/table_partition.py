"""One partition of a table, with its rows decoded: the rows of the current batch, and which rows are due.

A batch changes rows in memory only. `cells` returns what it has to send to the changelog, and only `on_committed`
writes to the row store. Does not know what is in a row.
"""

from collections.abc import Callable
from itertools import starmap
from typing import Any, Final, Generic, NamedTuple, TypeVar

from cachetools import LRUCache

from contexts.cells import DUE, Cells, Due, GetCell, due_cell, read_due_cell
from contexts.errors import DamagedRow
from schemas.ids import Micros, Offset
from streams.contexts.due import DueIndex
from streams.contexts.row_store import RowStore
from streams.errors import RowsUnavailable

_Row = TypeVar("_Row")
RowCache = LRUCache[str, Any]
"""Decoded rows that stay in memory between batches, shared by all table partitions of a process."""
_DUE_TIMES: Final = "due times"
"""Names all due cells of a partition, which are read together."""


class RowCodec(NamedTuple, Generic[_Row]):
    """How the rows of one table are stored as cells."""

    load: Callable[[str, GetCell], _Row]
    cells: Callable[[_Row, _Row], Cells]
    due: Callable[[_Row], Due | None]
    due_us: Callable[[Due], Micros]


class TablePartition(Generic[_Row]):
    """For one thread. Raises RowsThrownAway if stored rows are damaged, and ChangelogDamaged if restored ones are. Then
    nothing of the current batch is kept, and the process must leave."""

    def __init__(self, store: RowStore, codec: RowCodec[_Row], cache: RowCache) -> None:
        self.store = store
        self._codec = codec
        self._cache = cache
        # Strings keep their hash and tuples do not: this key makes the cache twice as fast.
        self._cache_prefix = f"{store.place.topic}-{store.place.partition}/"
        # The rows of the current batch: as they were before it, and as it has left them.
        self._before: dict[str, _Row] = {}
        self._after: dict[str, _Row] = {}
        self._cells: Cells = {}
        try:
            self.due = DueIndex(codec.due_us, starmap(read_due_cell, store.scan(DUE)))
        except DamagedRow as error:
            raise store.throw_away_or_blame_changelog(_DUE_TIMES, error) from error
        store.forget_damage(_DUE_TIMES)

    def __getitem__(self, entity_id: str) -> _Row:
        """The row as the current batch has left it. An unknown entity has an empty row."""
        row = self._after.get(entity_id)
        if row is None:
            row = self._cache.get(self._cache_prefix + entity_id)
            if row is None:
                row = self._load(entity_id)
            self._before[entity_id] = self._after[entity_id] = row
        return row

    def _load(self, entity_id: str) -> _Row:
        piece = f"row {entity_id}"
        try:
            row = self._codec.load(entity_id, self.store.get)
        except DamagedRow as error:
            raise self.store.throw_away_or_blame_changelog(piece, error) from error
        self.store.forget_damage(piece)
        return row

    def __setitem__(self, entity_id: str, row: _Row) -> None:
        """The batch must have asked for the row before."""
        self._after[entity_id] = row

    def rows_of_batch(self) -> list[tuple[str, _Row]]:
        """The rows that the current batch has asked for, as it has left them."""
        return list(self._after.items())

    def cells(self, other_cells: Cells) -> Cells:
        """The cells that the current batch has changed, together with `other_cells`, which belong to no row."""
        self._cells = dict(other_cells)
        for entity_id, row in self._after.items():
            before = self._before[entity_id]
            if row is not before:
                self._cells.update(self._codec.cells(before, row))
            # Compared with the stored due time also for an unchanged row: so a wrong due cell is corrected as soon as
            # its row is looked at.
            due = self._codec.due(row)
            if due != self.due.get(entity_id):
                self._cells.update([due_cell(entity_id, due)])
        return self._cells

    def on_committed(self, position: Offset | None) -> None:
        """The batch is committed, and the changelog holds it up to `position`; None if it had no cells. Raises
        RowsUnavailable if it had some and there is no position: then nobody knows where in the changelog they are."""
        if position is not None:
            self.store.write(self._cells, position)
        elif self._cells:
            raise RowsUnavailable(
                f"{len(self._cells)} cells of {self.store.place.topic}-{self.store.place.partition} were committed and "
                "the broker did not name their offset; the next start reads them from the changelog"
            )
        for key, value in self._cells.items():
            if key.startswith(DUE):
                self.due.set(*read_due_cell(key, value))
        for entity_id, row in self._after.items():
            self._cache[self._cache_prefix + entity_id] = row
        self._before, self._after, self._cells = {}, {}, {}

    def close(self) -> None:
        """Another worker may change these rows from now on, so they leave the cache too."""
        for key in [key for key in self._cache if key.startswith(self._cache_prefix)]:
            del self._cache[key]
        self.store.close()
