"""Decoded rows that stay in memory between batches: one budget for all tables of a process."""

from collections import OrderedDict
from typing import Any, Final

from streams.kafka.records import Place

ROWS_KEPT: Final = 16_000
"""However many partitions there are. A member's is some 25 kB with a full history: at most 400 MB."""


class KeptRows:
    """The rows that were used last, by the place of their table's changelog and their id. One thread."""

    def __init__(self, budget_rows: int = ROWS_KEPT) -> None:
        self._budget_rows = budget_rows
        self._rows: OrderedDict[tuple[Place, str], Any] = OrderedDict()

    def get(self, place: Place, entity_id: str) -> Any | None:
        return self._rows.get((place, entity_id))

    def keep(self, place: Place, entity_id: str, row: Any) -> None:
        key = place, entity_id
        self._rows[key] = row
        self._rows.move_to_end(key)
        if len(self._rows) > self._budget_rows:
            self._rows.popitem(last=False)

    def forget(self, place: Place) -> None:
        """The partition is somebody else's from now on, who will change its rows."""
        for key in [key for key in self._rows if key[0] == place]:
            del self._rows[key]
