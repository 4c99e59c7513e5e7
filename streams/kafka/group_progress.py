"""How far a consumer group is: where its owner of a partition goes on reading, and how that is committed.

`GroupProgress` is what most groups have: Kafka's committed offset of the partition that is read. Knows no stage's work.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.ids import Offset, Partition
from streams.errors import KafkaUnavailable
from streams.kafka.deleted_unread import parse_committed, to_commit
from streams.kafka.kafka_errors import translate
from streams.kafka.records import Place
from streams.kafka.resume_points import ResumePoint, find_resume_points
from streams.settings import KafkaSettings

_CALL_S: Final = 30.0


class Progress(Protocol):
    """The thread of the loop makes every call."""

    def places(self, partitions: Sequence[TopicPartition]) -> list[Place]:
        """What is read by the owner of these partitions."""
        ...

    def resume_points(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> Mapping[Place, ResumePoint]:
        """Where it goes on reading; places that are left out are not read. Raises StreamsError."""
        ...

    def to_commit(self, place: Place, offset: Offset, deleted: int) -> TopicPartition:
        """What the group commits so that it goes on at `offset` of what it reads. `deleted`: see ResumePoint."""
        ...


class GroupProgress:
    """The partitions that the group gives are those that are read."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._kafka = kafka
        self._group = group

    def places(self, partitions: Sequence[TopicPartition]) -> list[Place]:
        return [Place(at.topic, Partition(at.partition)) for at in partitions]

    def resume_points(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> Mapping[Place, ResumePoint]:
        committed = parse_committed(fetch_committed(consumer, self._group, partitions))
        return find_resume_points(self._kafka, self._group, committed, _CALL_S)

    def to_commit(self, place: Place, offset: Offset, deleted: int) -> TopicPartition:
        return to_commit(place, offset, deleted)


def fetch_committed(consumer: Consumer, group: str, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    """Waits until no transaction with offsets of the group is open. So the answer contains the last commit of the
    worker that owned the partitions before."""
    try:
        return consumer.committed(list(partitions), timeout=_CALL_S)
    except KafkaException as error:
        raise KafkaUnavailable(
            f"the broker did not give the offsets of the group {group} within {_CALL_S:.0f} s: "
            f"{translate(error)}; if the broker is there, a transaction was never ended: "
            "kafka-transactions.sh find-hanging names it, and abort ends it"
        ) from error
