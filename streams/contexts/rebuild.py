"""Gives a consumer group that has lost its offsets the counted offsets back, from the changelogs.

The group then goes on where it was and counts nothing twice. Rows need nothing: workers restore them from the same
changelogs.
"""

from contextlib import closing
from typing import Final

from confluent_kafka import TopicPartition

from contexts.errors import DamagedRow
from schemas.ids import ContextVersion, Offset, Partition
from schemas.topics import FIRST_CONTEXTS, ContextNames, context_names
from streams.contexts.counted_offsets import LETTER, read_offset_cell
from streams.errors import ChangelogDamaged
from streams.kafka.deleted_unread import to_commit
from streams.kafka.group_offsets import set_offsets
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place, offset_of
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0


def rebuild_offsets(
    kafka: KafkaSettings, version: ContextVersion = FIRST_CONTEXTS, timeout_s: float = 30.0
) -> dict[Place, Offset]:
    """Of one version of the contexts: commits the counted offsets of the partitions where the group is behind them, and
    returns these. Workers that refuse to run and are started again do not get in the way. Raises KafkaUnavailable if
    workers hold the group all the time, ChangelogDamaged if a counted offset cannot be read."""
    names = context_names(version)
    with closing(OffsetReader(kafka, _CALL_S)) as reader:
        changelogs = _Changelogs(kafka, reader, names)

        def missing() -> list[TopicPartition]:
            counted = changelogs.counted_offsets()
            committed = reader.progress(names.group, counted)
            return [
                to_commit(place, offset, committed[place].deleted)
                for place, offset in counted.items()
                if (committed[place].offset or 0) < offset
            ]

        if not missing():
            return {}
        done = set_offsets(kafka, names.group, missing, timeout_s)
    return {Place(at.topic, Partition(at.partition)): Offset(at.offset) for at in done}


class _Changelogs:
    """Reads every changelog record once: a later call reads on from where the one before it ended."""

    def __init__(self, kafka: KafkaSettings, reader: OffsetReader, names: ContextNames) -> None:
        self._kafka = kafka
        self._reader = reader
        self._next_offsets = reader.starts(reader.places(names.changelogs))
        # The newest record of a key replaces the older ones.
        self._cells: dict[tuple[Place, bytes], bytes] = {}

    def counted_offsets(self) -> dict[Place, Offset]:
        ends = self._reader.ends(self._next_offsets)
        with closing(scanner(self._kafka)) as consumer:
            for place, end in ends.items():
                for record in scan(consumer, place, self._next_offsets[place], end):
                    # Not simply `end`: a transaction that is still open hides the records before it.
                    self._next_offsets[place] = Offset(offset_of(record) + 1)
                    key, value = record.key(), record.value()
                    if key is not None and value is not None and key.startswith(LETTER):
                        self._cells[place, key] = value
        return dict(_counted_offset(changelog, key, value) for (changelog, key), value in self._cells.items())


def _counted_offset(changelog: Place, key: bytes, value: bytes) -> tuple[Place, Offset]:
    try:
        return read_offset_cell(key, value, changelog.partition)
    except DamagedRow as error:
        raise ChangelogDamaged(*changelog, error) from error
