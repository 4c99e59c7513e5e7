"""Records of the dead-letter topic as the stages and `replay` write them."""

from typing import Any

from confluent_kafka import Producer

from schemas import topics
from schemas.dead_letters import DeadLetterCause, Headers, to_headers
from schemas.ids import Offset, Partition
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_box import ALL, Selection, letters
from streams.settings import KafkaSettings


def cause_of_death(topic: str, stage: str = "contexts") -> DeadLetterCause:
    return DeadLetterCause(stage, topic, Partition(1), Offset(7), "text: too long")


def send_dead_letter(
    kafka: KafkaSettings, topic: str, value: bytes, partition: int = 0, headers: Headers | None = None
) -> None:
    send_to_dead_letters(
        kafka, partition, b"p1", value, [*(headers or [("own", b"1")]), *to_headers(cause_of_death(topic))]
    )


def send_to_dead_letters(
    kafka: KafkaSettings, partition: int, key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    producer = Producer(producer_config(kafka))
    producer.produce(topics.DEAD_LETTERS, value, key, partition=partition, headers=list[tuple[str, Any]](headers))
    assert producer.flush(20) == 0


def dead_letter_ids(kafka: KafkaSettings, reader: OffsetReader, selection: Selection = ALL) -> list[str]:
    return [str(letter.id) for letter in letters(kafka, reader, selection)]
