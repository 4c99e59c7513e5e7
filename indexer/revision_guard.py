"""The revision guard of both cold tiers: an older record never overwrites a newer one, a delete included.

Of two records of one entity the one with the higher revision is newer. Of one revision it is the one at the later
offset of the partition: a context that was encoded again has its revision, and another vector.

`cold/edge/tier.py` and `cold/qdrant/tier.py` ask it before each write which records to store. On a Qdrant server an
earlier owner may still be writing, so `qdrant/tier.py` also sends the server a condition. The hot tier has the same
rule (`_Step` in `hot/tier.py`), but a post also counts as changed by an older revision there. Pure functions. Knows no
tier.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from indexer.tiers import IndexRecord
from schemas.ids import Offset, Partition, Revision


class Written(NamedTuple):
    """Which record an entity was last written from."""

    revision: Revision
    partition: Partition
    offset: Offset


class NewestRecords(NamedTuple):
    records: list[IndexRecord]
    """The records to store, one for each entity."""
    num_changes: int
    """How many records changed something, also those that a later record of the batch replaced."""


def newest_records(
    records: Iterable[IndexRecord], written: Callable[[str], Written | None], *, again: bool = False
) -> NewestRecords:
    """Leaves out every record that is not newer than the entity's previous one: an earlier one of `records`, or else
    the stored one. `written` gives None for an entity that was never written. With `again` the record that is stored
    already is not left out either."""
    newest: dict[str, IndexRecord] = {}
    num_changes = 0
    for record in records:
        entity_id = record.embedding.entity_id
        before = newest.get(entity_id)
        last_write = written(entity_id) if before is None else written_from(before)
        if last_write is None or is_newer(record, last_write, or_the_same=again):
            newest[entity_id] = record
            num_changes += 1
    return NewestRecords(list(newest.values()), num_changes)


def written_from(record: IndexRecord) -> Written:
    return Written(record.embedding.revision, record.partition, record.offset)


def is_newer(record: IndexRecord, than: Written, *, or_the_same: bool = False) -> bool:
    """Offsets of two partitions cannot be compared: of one revision neither is newer then."""
    if record.embedding.revision != than.revision:
        return record.embedding.revision > than.revision
    if record.partition != than.partition:
        return False
    return record.offset > than.offset or (or_the_same and record.offset == than.offset)
