"""Counts the records that retention deleted before a consumer group had read them.

If the log of a partition begins after the offset that the group has committed, the records in between are gone. Their
number is kept in the metadata of the group's committed offset. So whoever can ask the broker knows it, and it is
committed together with the offset that it belongs to. Other gaps in the offsets are not counted: control records and
compaction leave gaps too. Knows no stage's work.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from schemas import topics
from schemas.ids import Offset, Partition
from streams.kafka.kafka_errors import translate
from streams.kafka.records import Place

_METADATA: Final = re.compile(rb"deleted-unread=(\d+);")


class Committed(NamedTuple):
    """What a group has committed of one partition. `offset` is None if it has committed nothing. `deleted` is how many
    records were deleted unread so far, at most."""

    offset: Offset | None
    deleted: int


def parse_committed(answer: Iterable[TopicPartition]) -> dict[Place, Committed]:
    """Reads the broker's answer. Metadata that another program wrote counts as none. Raises StreamsError if the broker
    cannot tell the offset of a partition now, which is not the same as having none."""
    partitions = list(answer)
    for partition in partitions:
        if partition.error is not None:
            raise translate(partition.error)
    return {
        Place(partition.topic, Partition(partition.partition)): Committed(
            Offset(partition.offset) if partition.offset >= 0 else None, _deleted(partition)
        )
        for partition in partitions
    }


def _deleted(partition: TopicPartition) -> int:
    match = _METADATA.match(metadata_of(partition))
    return int(match[1]) if match else 0


def metadata_of(partition: TopicPartition) -> bytes:
    """May have foreign bytes at its end: librdkafka copies metadata without the terminating zero of a C string, and
    confluent-kafka 2.16 reads on to the next zero. So our metadata marks its own end with a semicolon."""
    try:
        return (partition.metadata or "").encode()
    except UnicodeDecodeError as error:
        return error.object


def to_commit(place: Place, offset: Offset, deleted: int) -> TopicPartition:
    metadata = commit_metadata(deleted)
    return TopicPartition(*place, offset, metadata) if metadata else TopicPartition(*place, offset)


def commit_metadata(deleted: int) -> str:
    return f"deleted-unread={deleted};" if deleted else ""


def deleted_since(committed: Offset | None, log_start: Offset) -> int:
    """How many records were deleted unread since the group committed last. A group that has committed nothing yet has
    missed nothing."""
    return max(0, log_start - committed) if committed is not None else 0


def sentence(group: str, topic: str, deleted: Mapping[Partition, int]) -> str:
    """Tells an operator what was deleted of a topic before the group had read it, what follows from it, and how to end
    this message."""
    partitions = ", ".join(f"{number} of partition {partition}" for partition, number in sorted(deleted.items()))
    return (
        f"{topic}: up to {sum(deleted.values())} records ({partitions}) were deleted before the group {group} had read "
        f"them; {consequence(group, topic)}; then, or to let it be, stop the workers and run: nearline acknowledge"
    )


def consequence(group: str, topic: str) -> str:
    """What follows for whoever relies on the group's work, and how to mend it."""
    name = topics.first_name(topic)
    if topics.first_name(group) == topics.CONTEXTS_GROUP and name in topics.INPUTS:
        return (
            "counts and histories may be wrong; rebuild them from your own record of those events: nearline ingest FILE"
        )
    if topics.first_name(group) == topics.CONTEXTS_GROUP and name in topics.HOPS:
        # The events themselves are still in the input topics. Who ingests them again has them counted twice.
        return "counts and histories may be wrong; make them anew from the input topics: nearline rebuild contexts"
    if group == topics.TRENDING_GROUP:
        return "trending lists are short of them until they have decayed"
    if topics.asks_to_replay(topic):
        return "what they asked for was not done; ask again: nearline replay"
    return "what they said is missing until their posts and members change again"
