"""Reports the records that retention deleted before a group had read them, and forgets them when an operator has
acknowledged them.

The number of such records is in the metadata of a group's committed offsets (`streams/kafka/deleted_unread.py`).
Acknowledging sets these offsets again without it, for the groups of all generations. This is possible only while a
group has no members, because a worker would commit the number that it remembers again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from schemas import stages
from schemas.ids import ContextVersion, Offset, Partition
from schemas.stages import StageReads, all_stages
from schemas.topics import FIRST_CONTEXTS
from streams.generations.log import read_generations
from streams.kafka.deleted_unread import sentence, to_commit
from streams.kafka.group_offsets import set_offsets
from streams.kafka.offsets import OffsetReader
from streams.operate.lag import deleted_unread
from streams.settings import KafkaSettings

_ASK_S: Final = 20.0
_EMPTY_S: Final = 10.0
"""A worker that was killed stays a member for the 6 s of its session."""


class Acknowledged(NamedTuple):
    """`number` is how many records of the topic were deleted unread, at most."""

    group: str
    topic: str
    number: int


def missed_by_contexts(kafka: KafkaSettings, version: ContextVersion = FIRST_CONTEXTS) -> list[str]:
    """One sentence for each topic that lost records before the context stage had read them. Raises StreamsError."""
    reads = stages.contexts_reads(version)
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        places = reader.places(reads.topics)
        deleted = deleted_unread(reader.progress(reads.group, places), reader.starts(places))
    by_topic: dict[str, dict[Partition, int]] = {}
    for place, number in deleted.items():
        by_topic.setdefault(place.topic, {})[place.partition] = number
    return [sentence(reads.group, topic, by_partition) for topic, by_partition in by_topic.items()]


def acknowledge_deleted(kafka: KafkaSettings, timeout_s: float = _EMPTY_S) -> Iterator[Acknowledged]:
    """Yields each group once its offsets are set. If the record at a group's offset was deleted, the offset is moved to
    the first record that is left, as the stage would do. Raises KafkaUnavailable if a group has members for all of
    `timeout_s`; StreamsError."""
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        for read in _groups(kafka, reader):
            by_topic = _acknowledge(kafka, reader, read, timeout_s)
            yield from (Acknowledged(read.group, topic, number) for topic, number in by_topic.items())


def _acknowledge(kafka: KafkaSettings, reader: OffsetReader, read: StageReads, timeout_s: float) -> Counter[str]:
    """Returns the numbers of records by topic."""
    by_topic: Counter[str] = Counter()

    def find_offsets() -> list[TopicPartition]:
        by_topic.clear()
        places = reader.places(read.topics)
        progress, starts = reader.progress(read.group, places), reader.starts(places)
        deleted = deleted_unread(progress, starts)
        for place, number in deleted.items():
            by_topic[place.topic] += number
        return [to_commit(place, Offset(max(starts[place], progress[place].offset or 0)), 0) for place in deleted]

    if find_offsets():
        set_offsets(kafka, read.group, find_offsets, timeout_s)
    return by_topic


def _groups(kafka: KafkaSettings, reader: OffsetReader) -> Iterable[StageReads]:
    """Each group once, with what it reads."""
    state = read_generations(kafka)
    contexts = {record.id: record.contexts for record in state.records.values()}
    reads = [
        read
        for generation in (None, *reader.generations())
        for read in all_stages(generation, contexts=contexts, versions=state.context_versions)
    ]
    return {read.group: read for read in reads if read.group}.values()
