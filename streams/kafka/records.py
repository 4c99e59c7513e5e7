"""Where a record is, and a record to be sent. Plain data, so that whoever only wants these loads no loop."""

from typing import NamedTuple

from confluent_kafka import Message

from schemas.dead_letters import Headers
from schemas.ids import Millis, Offset, Partition


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: Partition


def place_of(record: Message) -> Place:
    return Place(str(record.topic()), Partition(int(record.partition() or 0)))


def offset_of(record: Message) -> Offset:
    return Offset(int(record.offset() or 0))


class Output(NamedTuple):
    """A record to be sent. Without a partition, the key decides; without a timestamp, it is that of the sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    partition: Partition | None = None
    timestamp_ms: Millis | None = None
