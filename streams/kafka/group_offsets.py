"""Sets the offsets of a consumer group that has no members. Knows no stage."""

import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition

from streams.errors import Fenced, KafkaUnavailable
from streams.kafka.clients import admin
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_PAUSE_S: Final = 0.1


def set_offsets(
    kafka: KafkaSettings, group: str, find_offsets: Callable[[], list[TopicPartition]], timeout_s: float
) -> list[TopicPartition]:
    """Waits until the group has no member, then sets the offsets that `find_offsets` returns, and returns them.
    `find_offsets` is called only then, so that it sees what the last member has committed. Raises KafkaUnavailable if
    the group has members for all of `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _refuse_members(kafka, group)
            offsets = find_offsets()
            if offsets:
                _set_once(kafka, group, offsets)
        except (KafkaUnavailable, Fenced) as error:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"the offsets of the group {group} cannot be set while workers run; stop them ({error})"
                ) from error
            time.sleep(_PAUSE_S)
        else:
            return offsets


def _refuse_members(kafka: KafkaSettings, group: str) -> None:
    client = admin(kafka)
    with kafka_errors():
        described = client.describe_consumer_groups([group], request_timeout=_CALL_S)[group].result()
    if described.state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
        raise KafkaUnavailable("the group has members")


def _set_once(kafka: KafkaSettings, group: str, offsets: list[TopicPartition]) -> None:
    request = ConsumerGroupTopicPartitions(group, offsets)
    client = admin(kafka)
    with kafka_errors():
        answer = client.alter_consumer_group_offsets([request], request_timeout=_CALL_S)[group].result()
    for partition in answer.topic_partitions:
        if partition.error is not None:
            raise translate(partition.error)
