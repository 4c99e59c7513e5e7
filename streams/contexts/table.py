"""The two tables, posts and members: the partitions that this worker owns, and the contexts that a batch publishes.

`contexts/` decides what an event changes and when a row is published. That a row is published at most once a batch is
decided here.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from contexts.cells import Cells, due_us, load_member, load_post, member_cells, member_due, post_cells, post_due
from contexts.members import publish_member
from contexts.posts import publish_post
from contexts.rows import MemberRow, PostRow
from contexts.settings import ContextRules
from schemas.contexts import Context, encode_context
from schemas.headers import Origin, older, with_origin
from schemas.ids import MemberId, Micros, Offset, Partition, PostId, Revision
from schemas.topics import FIRST_NAMES, ContextNames
from streams.contexts.row_store import RowStore
from streams.contexts.table_partition import RowCache, RowCodec, TablePartition
from streams.kafka.records import Output


class _State(Protocol):
    @property
    def revision(self) -> Revision: ...
    @property
    def publish_due_us(self) -> Micros | None: ...


class ContextRow(Protocol):
    """What post rows and member rows have in common."""

    @property
    def state(self) -> _State: ...


_Row = TypeVar("_Row", bound=ContextRow)


class TableSpec(NamedTuple, Generic[_Row]):
    """What differs between the table of posts and the table of members."""

    codec: RowCodec[_Row]
    changelog: str
    context_topic: str
    publish: Callable[[_Row, Micros], tuple[_Row, Context]]


def post_table(rules: ContextRules, names: ContextNames = FIRST_NAMES) -> TableSpec[PostRow]:
    due_by_rules = partial(due_us, rules=rules)
    codec = RowCodec(lambda post_id, get: load_post(PostId(post_id), get), post_cells, post_due, due_by_rules)
    return TableSpec(codec, names.post_changelog, names.post_contexts, publish_post)


def member_table(rules: ContextRules, names: ContextNames = FIRST_NAMES) -> TableSpec[MemberRow]:
    due_by_rules = partial(due_us, rules=rules)
    codec = RowCodec(
        lambda member_id, get: load_member(MemberId(member_id), get), member_cells, member_due, due_by_rules
    )
    return TableSpec(codec, names.member_changelog, names.member_contexts, partial(publish_member, rules=rules))


class Table(Generic[_Row]):
    """For one thread, but for `compact_if_due`, `compacted_at_s` and `num_open`."""

    def __init__(self, spec: TableSpec[_Row], cache: RowCache) -> None:
        self.spec = spec
        self._cache = cache
        self._partitions: dict[Partition, TablePartition[_Row]] = {}
        # The oldest event behind each publication. None for a delayed publication, whose age would say
        # nothing about freshness.
        self._to_publish: dict[tuple[Partition, str], Origin | None] = {}

    def open(self, store: RowStore) -> None:
        self._partitions[store.partition] = TablePartition(store, self.spec.codec, self._cache)

    def close(self, partitions: Iterable[Partition]) -> None:
        for number in partitions:
            partition = self._partitions.pop(number, None)
            if partition is not None:
                partition.close()

    @property
    def num_open(self) -> int:
        """How many partitions are open."""
        return len(self._partitions)

    @property
    def num_delayed_publications(self) -> int:
        return sum(partition.due.num_delayed_publications for partition in self._partitions.values())

    @property
    def estimated_num_cells(self) -> int:
        return sum(partition.store.estimated_num_cells() for partition in self._partitions.values())

    def compact_if_due(self, interval_s: float) -> None:
        """See `RowStore.compact_if_due`. May run in any thread."""
        for partition in list(self._partitions.values()):
            partition.store.compact_if_due(interval_s)

    def compacted_at_s(self) -> float:
        """Of the partition whose full compaction is longest ago; now if none is open. May run in any thread."""
        partitions = list(self._partitions.values())
        return min((partition.store.compacted_at_s() for partition in partitions), default=time.time())

    def __getitem__(self, partition: Partition) -> TablePartition[_Row]:
        return self._partitions[partition]

    def mark_for_publication(self, partition: Partition, entity_id: str, origin: Origin | None) -> None:
        """Publishes this entity with the batch. If it is marked several times, the oldest origin is kept; None (a
        delayed publication) never replaces one."""
        key = partition, entity_id
        self._to_publish[key] = older(self._to_publish.get(key), origin)

    def mark_for_republication(self, partition: Partition, entity_id: str, origin: Origin) -> None:
        """Marks the entity if it was ever published."""
        if self[partition][entity_id].state.revision:
            self.mark_for_publication(partition, entity_id, origin)

    def publish_delayed_now(self, partition: Partition) -> None:
        """Publishes with the current batch what the batch itself has delayed."""
        for entity_id, row in self[partition].rows_of_batch():
            if row.state.publish_due_us is not None:
                self.mark_for_publication(partition, entity_id, origin=None)

    def due(self, now_us: Micros, flushed: frozenset[Partition], limit: int) -> Iterator[tuple[Partition, str]]:
        """The entities whose rows must be looked at now, at most `limit` of each partition; of a flushed partition also
        at most `limit` with a delayed publication."""
        for number, partition in self._partitions.items():
            entity_ids = partition.due.due(now_us, limit)
            if number in flushed:
                entity_ids += partition.due.delayed_publications(limit)
            yield from ((number, entity_id) for entity_id in entity_ids)

    def publish(self, now_us: Micros) -> Iterator[Output]:
        """The context of every marked row, once, at its next revision."""
        for (number, entity_id), origin in self._to_publish.items():
            partition = self[number]
            partition[entity_id], context = self.spec.publish(partition[entity_id], now_us)
            value = encode_context(context)
            yield Output(self.spec.context_topic, entity_id.encode(), value, with_origin(origin))
        self._to_publish = {}

    def changelog_records(self, offset_cells: dict[Partition, Cells]) -> Iterator[Output]:
        """The cells that the current batch has changed in its rows, together with `offset_cells`."""
        for number, partition in self._partitions.items():
            for key, value in partition.cells(offset_cells.get(number, {})).items():
                yield Output(self.spec.changelog, key, value, None, number)

    def on_committed(self, last_offset: Callable[[str, Partition], Offset | None]) -> None:
        """`last_offset` gives the offset of the last record that the transaction wrote to a changelog partition."""
        for number, partition in self._partitions.items():
            last = last_offset(self.spec.changelog, number)
            partition.on_committed(None if last is None else Offset(last + 1))
