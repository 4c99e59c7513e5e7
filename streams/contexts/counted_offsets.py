"""How far the rows have counted each input, kept with the rows in the changelog.

The group's offsets say the same, and are what counts. These are the second copy that tells a lost group from a new one,
so that nothing is counted twice, and that brings the offsets back.
"""

import struct
from collections.abc import Mapping
from typing import Final

from contexts.cells import Cells
from contexts.errors import DamagedRow
from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.rows import TablePartition
from streams.errors import OffsetsLost
from streams.kafka.records import Place

LETTER: Final = b"o"
"""Of the cells with positions; contexts/cells.py has the other letters."""
_POSITIONS: Final = "positions"
"""All of a partition are read at once."""
_offset = struct.Struct(">q")

CHANGELOG_OF: Final = {
    topics.POSTS: topics.POST_CHANGELOG,
    topics.ACTIVITY_BY_POST: topics.POST_CHANGELOG,
    topics.REPUBLISH: topics.POST_CHANGELOG,
    topics.MEMBERS: topics.MEMBER_CHANGELOG,
    topics.ACTIONS_BY_MEMBER: topics.MEMBER_CHANGELOG,
    topics.ACTIVITY: topics.MEMBER_CHANGELOG,
}
"""Which changelog keeps the position of which input, always in the partition of the same number."""


def position_cells(positions: Mapping[Place, Offset], changelog: str) -> dict[Partition, Cells]:
    cells: dict[Partition, Cells] = {}
    for place, offset in positions.items():
        if CHANGELOG_OF[place.topic] == changelog:
            cells.setdefault(place.partition, {})[LETTER + place.topic.encode()] = _offset.pack(offset)
    return cells


def read_position(key: bytes, value: bytes, partition: Partition) -> tuple[Place, Offset]:
    """What a cell with the letter of positions says. Raises DamagedRow."""
    try:
        topic = key[len(LETTER) :].decode()
        (offset,) = _offset.unpack(value)
    except (struct.error, UnicodeDecodeError) as error:
        input_name = key[len(LETTER) :].decode(errors="replace")
        raise DamagedRow(f"the position in {input_name} cannot be read: {error}") from error
    return Place(topic, partition), Offset(offset)


def refuse_lost_offsets(table: TablePartition, committed: Mapping[Place, Offset | None]) -> None:
    """Raises RowsThrownAway or ChangelogDamaged where a position cannot be read, and OffsetsLost when the group would
    read again what the rows have counted. The group may be ahead: it also commits control records. It is never behind
    because the broker has lost records: the transaction that sets its offsets back sets these back too."""
    for place, counted in _counted(table):
        offset = committed.get(place)
        if offset is None or offset < counted:
            raise OffsetsLost(
                f"the consumer group {topics.CONTEXTS_GROUP} has lost its offsets of {place.topic}-{place.partition} "
                f"(it has {'none' if offset is None else offset}, the rows have counted up to {counted}) and would "
                "count events twice; bring them back with: nearline contexts rebuild"
            )


def _counted(table: TablePartition) -> list[tuple[Place, Offset]]:
    try:
        positions = [read_position(key, value, table.partition) for key, value in table.scan(LETTER)]
    except DamagedRow as error:
        raise table.damaged(_POSITIONS, error) from error
    table.read_well(_POSITIONS)
    return positions
