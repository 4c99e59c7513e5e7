"""Topics of a real broker: makes them, writes records to them, and reads them to their ends."""

import time
import uuid
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas import topics
from schemas.ids import Generation, Partition
from streams.kafka.clients import client_config, producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place, offset_of, place_of
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.waiting import until

Headers = list[tuple[str, bytes]]


def new_generation() -> Generation:
    """A generation that no other test uses."""
    return Generation(f"test-{uuid.uuid4().hex[:8]}")


class Sender:
    """Sends records and waits until the broker has them. With a `transactional_id` each `send` is a transaction."""

    def __init__(self, kafka: KafkaSettings, transactional_id: str | None = None, **over: str) -> None:
        transactional = {"transactional.id": transactional_id} if transactional_id else {}
        self._producer = Producer(producer_config(kafka, **transactional, **over))
        self._transactional = transactional_id is not None
        if self._transactional:
            self._producer.init_transactions(30)

    def send(self, topic: str, records: Iterable[tuple[str, bytes | None]], headers: Headers | None = None) -> None:
        if self._transactional:
            self._producer.begin_transaction()
        for key, value in records:
            self._producer.produce(topic, value, key.encode(), headers=headers or [])
            self._producer.poll(0)
        if self._transactional:
            self._producer.commit_transaction(30)
        assert self._producer.flush(30) == 0


def read_topic(kafka: KafkaSettings, topic: str, timeout_s: float = 60.0) -> list[Message]:
    """Every committed record that is in the topic now, in the order of partitions and offsets.

    The marker of a committed transaction may arrive a moment after the group's offsets, and the broker then reports an
    end of the partition that is too early. So this reads on until it has reached the high watermark.
    """
    over = {"group.id": "reader", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer(client_config(kafka, **over, **{"enable.partition.eof": True}))
    try:
        reader = OffsetReader(kafka)
        ends = reader.ends(reader.places([topic]))
        consumer.assign([TopicPartition(*place, 0) for place in ends])
        records: list[Message] = []
        deadline = time.monotonic() + timeout_s
        while ends:
            assert time.monotonic() < deadline, f"{topic} was not read to its end within {timeout_s:.0f} s"
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    records.append(message)
                elif offset_of(message) >= ends.get(place_of(message), 0):
                    ends.pop(place_of(message), None)
        return sorted(records, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def all_places(kafka: KafkaSettings, *topics: str) -> set[Place]:
    return {Place(topic, Partition(number)) for topic in topics for number in range(kafka.partitions)}


def make_topics(broker: RunningBroker) -> KafkaSettings:
    """Makes all topics of GENERATION, with two partitions each."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=2)
    ensure_topics(kafka, (*topics.core_topics(), *topics.generation_topics(GENERATION)))
    return kafka


def keys_and_values(kafka: KafkaSettings, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key(), record.value()) for record in read_topic(kafka, topic)]


def produce(kafka: KafkaSettings, topic: str, partition: int, num: int = 1, timestamp_ms: int = 0) -> None:
    """`num` records whose content does not matter."""
    producer = Producer(producer_config(kafka))
    for _ in range(num):
        producer.produce(topic, b"x", b"k", partition=partition, timestamp=timestamp_ms)
    assert producer.flush(20) == 0


def transaction(kafka: KafkaSettings, topic: str, partition: int, *, commit: bool | None) -> Producer:
    """Sends a record in a transaction that is committed, aborted, or with None left open."""
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


def delete_before(broker: RunningBroker, topic: str, partition: int, offset: int) -> None:
    """Shortens the log as retention would, so that it begins at `offset`. Kafka never shortens a topic that is only
    compacted, so the topic's policy becomes `delete`, without deleting old records by itself."""
    configs = {"cleanup.policy": "delete", "retention.ms": "-1"}
    entries = [ConfigEntry(*config, incremental_operation=AlterConfigOpType.SET) for config in configs.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    broker.admin.incremental_alter_configs([resource])[resource].result(20)
    place = TopicPartition(topic, partition, offset)

    def deleted() -> bool:
        # A client of its own each time: one that knew a topic of the same name before may take it for gone, for long.
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        try:
            admin.delete_records([place])[place].result(20)
        except KafkaException as error:
            # The policy takes a moment to reach the partition, and a new topic's leader one to be known.
            if error.args[0].code() not in (KafkaError.POLICY_VIOLATION, KafkaError._NOENT):
                raise
            return False
        return True

    until(deleted, f"{topic} to begin at {offset}")
