"""The counted offsets: how far the rows have counted each input, stored in the changelog beside the rows.

The offsets that the consumer group has committed say the same, and they decide where reading goes on. The counted
offsets are a second copy. They tell a group that has lost its offsets from a new group, so that no event is counted
twice, and a lost group gets its offsets back from them.
"""

import struct
from collections.abc import Mapping
from typing import Final

from contexts.cells import Cells
from contexts.errors import DamagedRow
from schemas import topics
from schemas.ids import Offset, Partition
from schemas.topics import ContextNames
from streams.contexts.row_store import RowStore
from streams.errors import OffsetsLost
from streams.kafka.records import Place

LETTER: Final = b"o"
"""The letter of offset cells; contexts/cells.py has the other letters."""
_ALL_OFFSETS: Final = "positions"
"""Names all offset cells of a partition, which are read together."""
_offset = struct.Struct(">q")

_OF_POSTS: Final = frozenset((topics.POSTS, topics.ACTIVITY_BY_POST, topics.REPUBLISH))
"""The counted offsets of these inputs are in the changelog of the posts, those of all others in that of the members;
always in the partition of the same number."""


def changelog_of(topic: str, names: ContextNames) -> str:
    """The changelog that stores the counted offsets of this input."""
    return names.post_changelog if topics.first_name(topic) in _OF_POSTS else names.member_changelog


def offset_cells(offsets: Mapping[Place, Offset], changelog: str, names: ContextNames) -> dict[Partition, Cells]:
    """The cells for those offsets that belong into this changelog."""
    cells: dict[Partition, Cells] = {}
    for place, offset in offsets.items():
        if changelog_of(place.topic, names) == changelog:
            cells.setdefault(place.partition, {})[LETTER + place.topic.encode()] = _offset.pack(offset)
    return cells


def read_offset_cell(key: bytes, value: bytes, partition: Partition) -> tuple[Place, Offset]:
    """The input partition of an offset cell, and its counted offset. Raises DamagedRow."""
    try:
        topic = key[len(LETTER) :].decode()
        (offset,) = _offset.unpack(value)
    except (struct.error, UnicodeDecodeError) as error:
        input_name = key[len(LETTER) :].decode(errors="replace")
        raise DamagedRow(f"the counted offset of {input_name} cannot be read: {error}") from error
    return Place(topic, partition), Offset(offset)


def refuse_lost_offsets(store: RowStore, committed: Mapping[Place, Offset | None], group: str) -> None:
    """Raises OffsetsLost if the group would read again what the rows have counted. Raises RowsThrownAway or
    ChangelogDamaged if a counted offset cannot be read.

    The group may be ahead, because it also commits past control records. It is not behind after the broker has lost
    records: the transaction that sets the group's offsets back sets the counted ones back too."""
    for place, counted in _read_counted(store):
        offset = committed.get(place)
        if offset is None or offset < counted:
            raise OffsetsLost(
                f"the consumer group {group} has lost its offsets of {place.topic}-{place.partition} "
                f"(it has {'none' if offset is None else offset}, the rows have counted up to {counted}) and would "
                "count events twice; bring them back with: nearline contexts rebuild"
            )


def _read_counted(store: RowStore) -> list[tuple[Place, Offset]]:
    try:
        counted = [read_offset_cell(key, value, store.partition) for key, value in store.scan(LETTER)]
    except DamagedRow as error:
        raise store.throw_away_or_blame_changelog(_ALL_OFFSETS, error) from error
    store.forget_damage(_ALL_OFFSETS)
    return counted
