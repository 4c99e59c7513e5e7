"""Sets the offsets of a consumer group that has no members."""

import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition

from streams.errors import Fenced, KafkaUnavailable
from streams.kafka.clients import admin, kafka_errors, translate
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_PAUSE_S: Final = 0.1


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
