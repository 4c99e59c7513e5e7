"""Asks the context stage to publish again: one entity, or everything that a partition holds back for later.

Owns the records of the topic `republish`, and the sending of a few records with certainty.
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas import topics
from schemas.ids import Partition
from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import new_producer, translate
from streams.kafka.records import Output
from streams.settings import KafkaSettings

_ANY_PARTITION: Final = -1


def flush_record(partition: Partition) -> Output:
    return Output(topics.REPUBLISH, None, None, [(topics.FLUSH_HEADER, b"1")], partition)


def republish_record(entity_id: bytes) -> Output:
    return Output(topics.REPUBLISH, entity_id, None)


def send_all(kafka: KafkaSettings, records: Iterable[Output], timeout_s: float = 10.0) -> int:
    """Returns how many were sent when the broker has all of them. Raises StreamsError when it does not have one of
    them; sending all again is what the caller can do."""
    failures: list[StreamsError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(translate(error))

    over = {"message.timeout.ms": int(timeout_s * 1000), "on_delivery": delivered}
    producer = new_producer(kafka, **over)
    num_sent = 0
    for record in records:
        produce(producer, record, timeout_s)
        num_sent += 1
    waiting = producer.flush(timeout_s + 1)
    if failures:
        raise failures[0]
    if waiting:
        raise KafkaUnavailable(f"{waiting} records were not taken within {timeout_s:.0f} s")
    return num_sent


def produce(producer: Producer, record: Output, timeout_s: float) -> None:
    headers: list[tuple[str, str | bytes | None]] = [*(record.headers or [])]
    partition = _ANY_PARTITION if record.partition is None else record.partition
    while True:
        try:
            producer.produce(record.topic, record.value, record.key, partition=partition, headers=headers)
        except BufferError:
            producer.poll(timeout_s)
        except KafkaException as error:
            raise translate(error) from error
        else:
            producer.poll(0)
            return
