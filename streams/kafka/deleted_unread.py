"""Records that retention deleted before a consumer group had read them: counted for each partition.

Where a partition's log begins behind the offset that the group has committed, what was between is gone. The count goes
into the metadata of the group's offsets, so that it is known wherever the broker can be asked, and says as much as the
offset does: both are committed together. Other gaps are none: control records and compaction leave some too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from schemas import topics
from schemas.ids import Offset, Partition
from streams.kafka.clients import translate
from streams.kafka.records import Place

_METADATA: Final = re.compile(rb"deleted-unread=(\d+);")


class Committed(NamedTuple):
    """What a group has committed of a partition: None where it has not. `deleted` is how many records were deleted
    unread so far, at most."""

    offset: Offset | None
    deleted: int


def parse_committed(found: Iterable[TopicPartition]) -> dict[Place, Committed]:
    """What the broker answers. Metadata of somebody else says nothing. Raises StreamsError where it does not know a
    partition's offset now, which is not the same as none."""
    found = list(found)
    for at in found:
        if at.error is not None:
            raise translate(at.error)
    return {
        Place(at.topic, Partition(at.partition)): Committed(Offset(at.offset) if at.offset >= 0 else None, _deleted(at))
        for at in found
    }


def _deleted(at: TopicPartition) -> int:
    match = _METADATA.match(_metadata(at))
    return int(match[1]) if match else 0


def _metadata(at: TopicPartition) -> bytes:
    """With bytes of somebody else behind it: librdkafka copies metadata without the end of a C string, and
    confluent-kafka 2.16 reads on to the next one. So ours says itself where it ends."""
    try:
        return (at.metadata or "").encode()
    except UnicodeDecodeError as error:
        return error.object


def to_commit(place: Place, offset: Offset, deleted: int) -> TopicPartition:
    metadata = commit_metadata(deleted)
    return TopicPartition(*place, offset, metadata) if metadata else TopicPartition(*place, offset)


def commit_metadata(deleted: int) -> str:
    return f"deleted-unread={deleted};" if deleted else ""


def deleted_since(committed: Offset | None, log_start: Offset) -> int:
    """Beyond what the group has counted. A group that has committed nothing yet has missed nothing."""
    return max(0, log_start - committed) if committed is not None else 0


def sentence(group: str, topic: str, deleted: Mapping[Partition, int]) -> str:
    """For an operator: what was deleted of a topic before the group had read it, what follows from it, and what ends
    it being said."""
    partitions = ", ".join(f"{number} of partition {partition}" for partition, number in sorted(deleted.items()))
    return (
        f"{topic}: up to {sum(deleted.values())} records ({partitions}) were deleted before the group {group} had read "
        f"them; {consequence(group, topic)}; then, or to let it be, stop the workers and run: nearline acknowledge"
    )


def consequence(group: str, topic: str) -> str:
    """What follows for whoever relies on the group's work, and the mend."""
    if group == topics.CONTEXTS_GROUP and topic in (*topics.INPUTS, *topics.HOPS):
        return (
            "counts and histories may be wrong; rebuild them from your own record of those events: nearline ingest FILE"
        )
    if group == topics.TRENDING_GROUP:
        return "trending lists are short of them until they have decayed"
    return "what they said is missing until their posts and members change again"
