"""The rows of one changelog partition, read without a worker and without its files."""

from collections.abc import Callable
from contextlib import closing
from typing import Final, Generic, TypeVar

from contexts.cells import GetCell, row_ids
from contexts.errors import DamagedRow
from schemas.ids import Offset
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_ASK_S: Final = 20.0
_TO_THE_END_S: Final = 30.0

_Row = TypeVar("_Row")


class ChangelogRows(Generic[_Row]):
    """Used by one thread. Holds all cells of the partition in memory."""

    def __init__(self, kafka: KafkaSettings, place: Place, load: Callable[[str, GetCell], _Row]) -> None:
        """`load` gives an empty row where there is none."""
        self._kafka = kafka
        self._place = place
        self._load = load
        self._cells: dict[bytes, bytes] = {}
        self._next = Offset(0)

    def read_on(self) -> None:
        """Up to everything that is committed now. Raises StreamsError."""
        with closing(OffsetReader(self._kafka, _ASK_S)) as reader:
            start, end = reader.starts([self._place])[self._place], reader.stable_ends([self._place])[self._place]
        with closing(scanner(self._kafka)) as consumer:
            first = max(start, self._next)
            for record in scan(consumer, self._place, first, end, to_the_end_s=_TO_THE_END_S):
                key, value = record.key(), record.value()
                if key is None:
                    continue
                if value is None:
                    self._cells.pop(key, None)
                else:
                    self._cells[key] = value
        self._next = max(first, end)

    def ids(self) -> set[str]:
        """Of the entities that have a row."""
        return row_ids(self._cells)

    def row(self, entity_id: str) -> _Row | None:
        """An empty row if there is none; None if it is damaged."""
        try:
            return self._load(entity_id, self._cells.get)
        except DamagedRow:
            return None
