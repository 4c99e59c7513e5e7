"""The revision guard of both cold tiers: an older record never overwrites a newer one, a delete included.

`cold/edge/tier.py` and `cold/qdrant/tier.py` ask it before each write which records to store. On a Qdrant server an
earlier owner may still be writing, so `qdrant/tier.py` also sends the server a condition. The hot tier checks
revisions on its own (`_Step` in `hot/tier.py`), because a post also counts as changed by an older revision there. Pure
functions. Knows no tier.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from indexer.tiers import IndexRecord
from schemas.ids import Revision


class NewestRecords(NamedTuple):
    records: list[IndexRecord]
    """The records to store, one for each entity."""
    num_changes: int
    """How many records changed something, also those that a later record of the batch replaced."""


def newest_records(records: Iterable[IndexRecord], stored_revision: Callable[[str], Revision]) -> NewestRecords:
    """Leaves out every record whose revision is not above that of the entity's previous record: an earlier one of
    `records`, or else the stored one. `stored_revision` gives 0 for an entity that was never written."""
    newest: dict[str, IndexRecord] = {}
    num_changes = 0
    for record in records:
        entity_id = record.embedding.entity_id
        before = newest.get(entity_id)
        revision = before.embedding.revision if before is not None else stored_revision(entity_id)
        if record.embedding.revision > revision:
            newest[entity_id] = record
            num_changes += 1
    return NewestRecords(list(newest.values()), num_changes)
