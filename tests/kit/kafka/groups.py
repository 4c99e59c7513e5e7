"""Stands in for stages in tests of lag and wait: topics, records, and the offsets that a group has committed."""

from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas import topics
from schemas.ids import Generation
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.waiting import until

GENERATION = Generation("g-1")


def made(broker: RunningBroker) -> KafkaSettings:
    """All topics of one generation, two partitions each."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=2)
    ensure_topics(kafka, (*topics.core_topics(), *topics.generation_topics(GENERATION)))
    return kafka


def produce(kafka: KafkaSettings, topic: str, partition: int, num: int = 1, timestamp_ms: int = 0) -> None:
    producer = Producer(producer_config(kafka))
    for _ in range(num):
        producer.produce(topic, b"x", b"k", partition=partition, timestamp=timestamp_ms)
    assert producer.flush(20) == 0


def transaction(kafka: KafkaSettings, topic: str, partition: int, *, commit: bool | None) -> Producer:
    """One record in a transaction that is committed, aborted, or (None) left open."""
    producer = Producer(producer_config(kafka, **{"transactional.id": f"{topic}-{partition}-{commit}"}))
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"x", b"k", partition=partition)
    producer.flush(20)
    if commit is True:
        producer.commit_transaction(20)
    elif commit is False:
        producer.abort_transaction(20)
    return producer


def commit(broker: RunningBroker, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]

    def taken() -> bool:
        request = broker.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
        return all(at.error is None for at in request[group].result(20).topic_partitions)

    # A broker's first group makes it wait for its offsets topic.
    until(taken, f"the broker to take offsets of {group}")


def delete_before(broker: RunningBroker, topic: str, partition: int, offset: int) -> None:
    """As retention would: the log begins there. A topic that is only compacted is never shortened, so it is not any
    more."""
    delete = [ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=delete)
    broker.admin.incremental_alter_configs([resource])[resource].result(20)
    place = TopicPartition(topic, partition, offset)

    def deleted() -> bool:
        try:
            broker.admin.delete_records([place])[place].result(20)
        except KafkaException as error:
            # The policy takes a moment to reach the partition.
            if error.args[0].code() != KafkaError.POLICY_VIOLATION:
                raise
            return False
        return True

    until(deleted, f"{topic} to begin at {offset}")


def commit_all(broker: RunningBroker, kafka: KafkaSettings, group: str, *names: str) -> None:
    """The group has done everything that is in these topics now."""
    reader = OffsetReader(kafka)
    commit(broker, group, reader.ends(reader.places(names)))
