"""A table partition with its rows decoded: the rows of the batch in work, those used lately, and what is due.

A batch changes rows in memory only; `cells` says what has to be sent to the changelog, and only `committed` writes.
"""

from collections.abc import Callable
from itertools import starmap
from typing import Final, Generic, NamedTuple, TypeVar

from contexts.cells import DUE, Cells, Due, GetCell, due_cell, read_due_cell
from contexts.errors import DamagedRow
from schemas.ids import Micros, Offset
from streams.contexts.due import DueIndex
from streams.contexts.kept_rows import KeptRows
from streams.contexts.rows import TablePartition
from streams.errors import RowsUnavailable

_Row = TypeVar("_Row")
_DUE_TIMES: Final = "due times"
"""All of a partition are read at once."""


class RowForm(NamedTuple, Generic[_Row]):
    """How rows of one kind are stored."""

    load: Callable[[str, GetCell], _Row]
    cells: Callable[[_Row, _Row], Cells]
    due: Callable[[_Row], Due | None]
    due_us: Callable[[Due], Micros]


class Table(Generic[_Row]):
    """One thread. Raises RowsThrownAway where rows are found to be damaged, ChangelogDamaged where they are so again:
    nothing of the batch in work is kept then, and the process must leave."""

    def __init__(self, stored: TablePartition, form: RowForm[_Row], kept: KeptRows) -> None:
        self.stored = stored
        self._form = form
        self._kept = kept
        self._before: dict[str, _Row] = {}
        self._after: dict[str, _Row] = {}
        self._cells: Cells = {}
        try:
            self.due = DueIndex(form.due_us, starmap(read_due_cell, stored.scan(DUE)))
        except DamagedRow as error:
            raise stored.damaged(_DUE_TIMES, error) from error
        stored.read_well(_DUE_TIMES)

    def __getitem__(self, entity_id: str) -> _Row:
        """As the batch in work has left it. An entity that is not known has an empty row."""
        row = self._after.get(entity_id)
        if row is None:
            row = self._kept.get(self.stored.place, entity_id)
            if row is None:
                row = self._load(entity_id)
            self._before[entity_id] = self._after[entity_id] = row
        return row

    def _load(self, entity_id: str) -> _Row:
        piece = f"row {entity_id}"
        try:
            row = self._form.load(entity_id, self.stored.get)
        except DamagedRow as error:
            raise self.stored.damaged(piece, error) from error
        self.stored.read_well(piece)
        return row

    def __setitem__(self, entity_id: str, row: _Row) -> None:
        """Only after the row was asked for in this batch."""
        self._after[entity_id] = row

    def touched(self) -> list[tuple[str, _Row]]:
        """The rows of the batch in work."""
        return list(self._after.items())

    def cells(self, extra: Cells) -> Cells:
        """What this batch has changed, with `extra` cells that are no row's."""
        self._cells = dict(extra)
        for entity_id, row in self._after.items():
            before = self._before[entity_id]
            if row is not before:
                self._cells.update(self._form.cells(before, row))
            # Compared with what is stored, also where the row is as it was: a look at it always puts its cell right.
            due = self._form.due(row)
            if due != self.due.of(entity_id):
                self._cells.update([due_cell(entity_id, due)])
        return self._cells

    def committed(self, position: Offset | None) -> None:
        """The batch is in the changelog, up to `position`; None: it had no cells. Raises RowsUnavailable where it had
        some: they are in the changelog, and nobody knows up to where."""
        if position is not None:
            self.stored.write(self._cells, position)
        elif self._cells:
            raise RowsUnavailable(
                f"{len(self._cells)} cells of {self.stored.place.topic}-{self.stored.place.partition} were committed "
                "and their offset was not said; the next start reads them from the changelog"
            )
        for key, value in self._cells.items():
            if key.startswith(DUE):
                self.due.set(*read_due_cell(key, value))
        for entity_id, row in self._after.items():
            self._kept.keep(self.stored.place, entity_id, row)
        self._before, self._after, self._cells = {}, {}, {}

    def close(self) -> None:
        self._kept.forget(self.stored.place)
        self.stored.close()
