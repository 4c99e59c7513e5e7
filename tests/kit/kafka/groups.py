"""Consumer groups of a real broker: commits offsets in their name, and asks for their lag and their members."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from streams.errors import KafkaUnavailable
from streams.kafka.clients import admin, client_config
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.waiting import until


def commit(
    broker: RunningBroker, group: str, offsets: Mapping[tuple[str, int], int], metadata: str | None = None
) -> None:
    """Makes the group commit these offsets, by (topic, partition)."""
    with_each = () if metadata is None else (metadata,)
    places = [TopicPartition(*place, offset, *with_each) for place, offset in offsets.items()]

    def taken() -> bool:
        # A new client each time: one that has asked too early may wait for that coordinator for good.
        client = admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
        request = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])
        try:
            return all(at.error is None for at in request[group].result(10).topic_partitions)
        except (KafkaException, TimeoutError):
            return False  # a broker's first group makes it wait for its offsets topic

    until(taken, f"the broker to take offsets of {group}", 60)


def commit_all(broker: RunningBroker, kafka: KafkaSettings, group: str, *names: str) -> None:
    """Makes the group commit the ends of these topics, as if it had done all of their records."""
    reader = OffsetReader(kafka)
    commit(broker, group, reader.ends(reader.places(names)))


def lag(kafka: KafkaSettings, group: str, topics: Sequence[str]) -> int:
    """How many records and control records the group has still to commit in these topics.

    Ends are high watermarks, asked for after the committed offsets. A stable end may be older than they are: the
    broker marks a transaction's offsets and its records as committed one after the other, so a stage's input could look
    done while the records that it made of it are not counted yet.
    """
    consumer = Consumer(client_config(kafka, **{"group.id": group, "isolation.level": "read_uncommitted"}))
    try:
        places = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ]
        total = 0
        for place in consumer.committed(places, timeout=20):
            low, high = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=20)
            total += high - (place.offset if place.offset >= 0 else low)
        return total
    finally:
        consumer.close()


def until_no_lag(kafka: KafkaSettings, group: str, topics: Sequence[str], timeout_s: float = 60.0) -> None:
    """Waits until the group has committed everything, the control records of transactions too."""

    def no_lag() -> bool:
        try:
            with kafka_errors():
                return lag(kafka, group, topics) == 0
        except KafkaUnavailable:
            return False  # a broker's first group makes it wait for its offsets topic

    until(no_lag, f"the lag of {group} to reach zero", timeout_s, every_s=0.1)


def until_workers_share(kafka: KafkaSettings, group: str, number: int) -> None:
    """Waits until this number of the group's members own partitions."""

    def settled() -> bool:
        # A new client each time: one that has asked too early may wait for that coordinator for good.
        client = admin(kafka)
        try:
            group_now = client.describe_consumer_groups([group], request_timeout=5)[group].result(10)
        except (KafkaException, TimeoutError):
            return False  # a broker's first group makes it wait for its offsets topic
        owners = [member for member in group_now.members if member.assignment.topic_partitions]
        return group_now.state == ConsumerGroupState.STABLE and len(owners) == number

    until(settled, f"{number} workers to share the partitions", 60, every_s=0.2)
