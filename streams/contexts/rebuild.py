"""Brings the offsets of a lost context group back from what its rows have counted.

Then it goes on where it was and counts nothing twice. Rows need nothing: they are restored from the same changelogs.
"""

from contextlib import closing
from typing import Final

from confluent_kafka import TopicPartition

from contexts.errors import DamagedRow
from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.counted_offsets import CHANGELOG_OF, LETTER, read_position
from streams.errors import ChangelogDamaged
from streams.kafka.deleted_unread import to_commit
from streams.kafka.group_offsets import set_offsets
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0


def rebuild_offsets(kafka: KafkaSettings, timeout_s: float = 30.0) -> dict[Place, Offset]:
    """Commits them and returns those that were behind. Workers that are refused and started again do not disturb it.
    Raises KafkaUnavailable when workers hold the group all the time, ChangelogDamaged where a position in there cannot
    be read."""
    with closing(OffsetReader(kafka, _CALL_S)) as reader:

        def behind() -> list[TopicPartition]:
            counted = _read_counted(kafka, reader)
            committed = reader.progress(topics.CONTEXTS_GROUP, counted)
            return [
                to_commit(place, offset, committed[place].deleted)
                for place, offset in counted.items()
                if (committed[place].offset or 0) < offset
            ]

        if not behind():
            return {}
        done = set_offsets(kafka, topics.CONTEXTS_GROUP, behind, timeout_s)
    return {Place(at.topic, Partition(at.partition)): Offset(at.offset) for at in done}


def _read_counted(kafka: KafkaSettings, reader: OffsetReader) -> dict[Place, Offset]:
    places = reader.places(sorted(set(CHANGELOG_OF.values())))
    starts, ends = reader.starts(places), reader.ends(places)
    # Of a position that was written again only the last counts.
    cells: dict[tuple[Place, bytes], bytes] = {}
    with closing(scanner(kafka)) as consumer:
        for place in places:
            for record in scan(consumer, place, starts[place], ends[place]):
                key, value = record.key(), record.value()
                if key is not None and value is not None and key.startswith(LETTER):
                    cells[place, key] = value
    return dict(_position(place, key, value) for (place, key), value in cells.items())


def _position(changelog: Place, key: bytes, value: bytes) -> tuple[Place, Offset]:
    try:
        return read_position(key, value, changelog.partition)
    except DamagedRow as error:
        raise ChangelogDamaged(*changelog, error) from error
