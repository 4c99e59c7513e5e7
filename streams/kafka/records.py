"""Names a partition and a record's offset in it, and describes a record to be sent. Plain data: knows no client."""

from typing import NamedTuple

from confluent_kafka import Message

from schemas.dead_letters import Headers
from schemas.ids import Millis, Offset, Partition


class Place(NamedTuple):
    """One partition of one topic: the place where records lie. It is the key of every mapping by partition.

    confluent-kafka's TopicPartition does not serve: it also carries an offset, metadata and an error. To make one of
    those, write `TopicPartition(*place, offset)`."""

    topic: str
    partition: Partition


def place_of(record: Message) -> Place:
    return Place(str(record.topic()), Partition(int(record.partition() or 0)))


def offset_of(record: Message) -> Offset:
    return Offset(int(record.offset() or 0))


class Output(NamedTuple):
    """A record to be sent. If `partition` is None, the key decides; if `timestamp_ms` is None, the time of sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    partition: Partition | None = None
    timestamp_ms: Millis | None = None
