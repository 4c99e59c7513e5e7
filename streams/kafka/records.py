"""Names a partition and a record's offset in it, and describes a record to be sent. Plain data: knows no client, and
loads none."""

from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.dead_letters import Headers
from schemas.ids import Millis, Offset, Partition

if TYPE_CHECKING:
    from confluent_kafka import Message

MAX_RECORD_BYTES: Final = 8 * 1024 * 1024
"""An input record has at most 1 MB. The largest record that we write is the context of a member with 4,000 ids of 256
bytes that JSON must escape."""


class Place(NamedTuple):
    """One partition of one topic: the place where records lie. It is the key of every mapping by partition.

    confluent-kafka's TopicPartition does not serve: it also carries an offset, metadata and an error. To make one of
    those, write `TopicPartition(*place, offset)`."""

    topic: str
    partition: Partition


def place_of(record: "Message") -> Place:
    return Place(str(record.topic()), Partition(int(record.partition() or 0)))


def offset_of(record: "Message") -> Offset:
    return Offset(int(record.offset() or 0))


class Output(NamedTuple):
    """A record to be sent. If `partition` is None, the key decides; if `timestamp_ms` is None, the time of sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    partition: Partition | None = None
    timestamp_ms: Millis | None = None
