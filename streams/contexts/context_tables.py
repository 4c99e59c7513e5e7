"""The tables of one kind of entity, post or member, over the partitions that this worker owns, with what the batch in
work wants to publish.

What is published, and when, was decided in `contexts/`; that a row is published once a batch is decided here.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from contexts.cells import Cells
from schemas.contexts import Context, encode_context
from schemas.ids import Micros, Millis, Offset, Partition, Revision
from schemas.topics import ORIGIN_HEADER
from streams.contexts.kept_rows import KeptRows
from streams.contexts.rows import TablePartition
from streams.contexts.tables import RowForm, Table
from streams.kafka.records import Output


class _State(Protocol):
    @property
    def revision(self) -> Revision: ...
    @property
    def publish_due_us(self) -> Micros | None: ...


class ContextRow(Protocol):
    """What both kinds of rows have."""

    @property
    def state(self) -> _State: ...


_Row = TypeVar("_Row", bound=ContextRow)


class KindForm(NamedTuple, Generic[_Row]):
    """What is different between posts and members."""

    rows: RowForm[_Row]
    changelog: str
    contexts: str
    publish: Callable[[_Row, Micros], tuple[_Row, Context]]


class KindTables(Generic[_Row]):
    """One thread."""

    def __init__(self, form: KindForm[_Row], kept: KeptRows) -> None:
        self.form = form
        self._kept = kept
        self._tables: dict[Partition, Table[_Row]] = {}
        # With the timestamp of the oldest event behind it; None: it was put off, and says nothing about freshness.
        self._wanted: dict[tuple[Partition, str], Millis | None] = {}

    def open(self, stored: TablePartition) -> None:
        self._tables[stored.partition] = Table(stored, self.form.rows, self._kept)

    def close(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            table = self._tables.pop(partition, None)
            if table is not None:
                table.close()

    def shed(self, age_s: float) -> int:
        """See `TablePartition.shed`. From any thread. Returns how many partitions are open."""
        tables = list(self._tables.values())
        for table in tables:
            table.stored.shed(age_s)
        return len(tables)

    def __getitem__(self, partition: Partition) -> Table[_Row]:
        return self._tables[partition]

    def want(self, partition: Partition, entity_id: str, origin_ms: Millis | None) -> None:
        """Of several wishes in one batch the oldest event counts; one that was put off counts for nothing."""
        key = partition, entity_id
        known = self._wanted.get(key)
        self._wanted[key] = min(known, origin_ms) if known is not None and origin_ms is not None else known or origin_ms

    def want_again(self, partition: Partition, entity_id: str, origin_ms: Millis) -> None:
        """Only what was ever published can be published again."""
        if self[partition][entity_id].state.revision:
            self.want(partition, entity_id, origin_ms)

    def want_held_back(self, partition: Partition) -> None:
        """What the batch in work has put off."""
        for entity_id, row in self[partition].touched():
            if row.state.publish_due_us is not None:
                self.want(partition, entity_id, None)

    def due(self, now_us: Micros, flushed: frozenset[Partition], limit: int) -> Iterator[tuple[Partition, str]]:
        """At most so many entities of each partition that want to be looked at now."""
        for partition, table in self._tables.items():
            found = table.due.due(now_us, limit)
            if partition in flushed:
                found += table.due.publications(limit)
            yield from ((partition, entity_id) for entity_id in found)

    def publish(self, now_us: Micros) -> Iterator[Output]:
        """Every wanted row once, at its next revision."""
        for (partition, entity_id), origin_ms in self._wanted.items():
            table = self[partition]
            table[entity_id], context = self.form.publish(table[entity_id], now_us)
            headers = None if origin_ms is None else [(ORIGIN_HEADER, b"%d" % origin_ms)]
            yield Output(self.form.contexts, entity_id.encode(), encode_context(context), headers)
        self._wanted = {}

    def changes(self, positions: dict[Partition, Cells]) -> Iterator[Output]:
        """The changelog records of the batch in work, with cells of positions beside those of rows."""
        for partition, table in self._tables.items():
            for key, value in table.cells(positions.get(partition, {})).items():
                yield Output(self.form.changelog, key, value, None, partition)

    def committed(self, ends: Callable[[str, Partition], Offset | None]) -> None:
        """`ends` gives the last changelog offset that the transaction wrote."""
        for partition, table in self._tables.items():
            last = ends(self.form.changelog, partition)
            table.committed(None if last is None else Offset(last + 1))
