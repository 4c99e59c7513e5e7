"""Brings the offsets of a lost context group back from what its rows have counted, and says what nothing brings back.

Then it goes on where it was and counts nothing twice. Rows need nothing: they are restored from the same changelogs.
"""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition

from contexts.errors import DamagedRow
from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.counted_offsets import CHANGELOG_OF, LETTER, read_position
from streams.errors import ChangelogDamaged, Fenced, KafkaUnavailable
from streams.kafka.clients import admin, kafka_errors, translate
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.kafka.unread import sentence, to_commit
from streams.operate.lag import OffsetReader, deleted_unread, stage_reads
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_PAUSE_S: Final = 0.1


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


def never_read(kafka: KafkaSettings) -> list[str]:
    """A sentence for each topic of which records were deleted before the stage had read them. Raises StreamsError."""
    with closing(OffsetReader(kafka, _CALL_S)) as reader:
        (contexts,) = (read for read in stage_reads(None) if read.group == topics.CONTEXTS_GROUP)
        places = reader.places(contexts.topics)
        deleted = deleted_unread(reader.progress(contexts.group, places), reader.starts(places))
    by_topic: dict[str, dict[Partition, int]] = {}
    for place, number in deleted.items():
        by_topic.setdefault(place.topic, {})[place.partition] = number
    return [sentence(contexts.group, topic, of_topic) for topic, of_topic in by_topic.items()]


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


def set_offsets(
    kafka: KafkaSettings, group: str, offsets: Callable[[], list[TopicPartition]], timeout_s: float
) -> list[TopicPartition]:
    """Only while the group has no member. `offsets` is asked when the last one has left, with what it committed then;
    they are returned. Raises KafkaUnavailable when the group always has a member."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _refuse_members(kafka, group)
            wanted = offsets()
            if wanted:
                _set_once(kafka, group, wanted)
        except (KafkaUnavailable, Fenced) as error:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"the offsets of the group {group} cannot be set while workers run; stop them ({error})"
                ) from error
            time.sleep(_PAUSE_S)
        else:
            return wanted


def _refuse_members(kafka: KafkaSettings, group: str) -> None:
    client = admin(kafka)
    with kafka_errors():
        described = client.describe_consumer_groups([group], request_timeout=_CALL_S)[group].result()
    if described.state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
        raise KafkaUnavailable("the group has members")


def _set_once(kafka: KafkaSettings, group: str, offsets: list[TopicPartition]) -> None:
    wanted = ConsumerGroupTopicPartitions(group, offsets)
    client = admin(kafka)
    with kafka_errors():
        done = client.alter_consumer_group_offsets([wanted], request_timeout=_CALL_S)[group].result()
    for at in done.topic_partitions:
        if at.error is not None:
            raise translate(at.error)
