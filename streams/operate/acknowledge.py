"""Records that retention deleted before a group had read them: says which, and forgets them once an operator knows and
has made it good.

The number is in the metadata of the group's offsets, so it is set with them, for all generations. Who has it in memory,
a worker, would commit it again: the broker refuses while the group has members.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from schemas import stages
from schemas.ids import Offset, Partition
from schemas.stages import StageReads, all_stages
from streams.kafka.deleted_unread import sentence, to_commit
from streams.kafka.group_offsets import set_offsets
from streams.kafka.offsets import OffsetReader
from streams.operate.lag import deleted_unread
from streams.settings import KafkaSettings

_ASK_S: Final = 20.0
_EMPTY_S: Final = 10.0
"""A worker that was killed is a member for its session's 6 s."""


class Acknowledged(NamedTuple):
    group: str
    topic: str
    number: int


def missed_by_contexts(kafka: KafkaSettings) -> list[str]:
    """A sentence for each topic of which records were deleted before the context stage had read them. Raises
    StreamsError."""
    group = stages.CONTEXTS.group
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        places = reader.places(stages.CONTEXTS.topics)
        deleted = deleted_unread(reader.progress(group, places), reader.starts(places))
    by_topic: dict[str, dict[Partition, int]] = {}
    for place, number in deleted.items():
        by_topic.setdefault(place.topic, {})[place.partition] = number
    return [sentence(group, topic, of_topic) for topic, of_topic in by_topic.items()]


def acknowledge_deleted(kafka: KafkaSettings, timeout_s: float = _EMPTY_S) -> Iterator[Acknowledged]:
    """Each group is done when it is yielded. Where a group stands before the first record that is left, it is put
    there, as its stage would be. Raises KafkaUnavailable when a group has members for `timeout_s`; StreamsError."""
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        for read in _groups(reader):
            by_topic = _acknowledge(kafka, reader, read, timeout_s)
            yield from (Acknowledged(read.group, topic, number) for topic, number in by_topic.items())


def _acknowledge(kafka: KafkaSettings, reader: OffsetReader, read: StageReads, timeout_s: float) -> Counter[str]:
    """Numbers of records by topic."""
    by_topic: Counter[str] = Counter()

    def acknowledged() -> list[TopicPartition]:
        by_topic.clear()
        places = reader.places(read.topics)
        progress, starts = reader.progress(read.group, places), reader.starts(places)
        deleted = deleted_unread(progress, starts)
        for place, number in deleted.items():
            by_topic[place.topic] += number
        return [to_commit(place, Offset(max(starts[place], progress[place].offset or 0)), 0) for place in deleted]

    if acknowledged():
        set_offsets(kafka, read.group, acknowledged, timeout_s)
    return by_topic


def _groups(reader: OffsetReader) -> Iterable[StageReads]:
    reads = [read for generation in (None, *reader.generations()) for read in all_stages(generation)]
    return {read.group: read for read in reads if read.group}.values()
