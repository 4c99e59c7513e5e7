"""A record counts as delivered only when the broker has it, and waiting for that sends nothing twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from confluent_kafka import Message, Producer

from schemas import topics
from streams.errors import KafkaUnavailable
from streams.kafka import sending as delivery
from streams.kafka.clients import producer_config
from streams.kafka.sending import DeadLetterDelivery, send_all
from streams.operate.republish import republish_record
from streams.settings import KafkaSettings
from tests.kit.kafka.topics import read_topic

NOBODY: Final = KafkaSettings(bootstrap_servers="127.0.0.1:1")
RECORD: Final = Message(topic="posts", partition=0, offset=0, key=b"p", value=b"p")
NUM_LETTERS: Final = 5


def letters(stage_producer: Producer) -> DeadLetterDelivery:
    return DeadLetterDelivery(stage_producer, "index", [(RECORD, f"cause {n}") for n in range(NUM_LETTERS)])


@contextmanager
def producer(kafka: KafkaSettings, **options: object) -> Iterator[Producer]:
    made_producer = Producer(producer_config(kafka, **options))
    yield made_producer
    made_producer.purge()
    made_producer.flush(5)


@pytest.mark.parametrize(("given_up_ms", "sentence"), [(60_000, "5 dead letters were not taken"), (100, "timed out")])
def test_letters_that_the_broker_does_not_take_are_an_error(
    monkeypatch: pytest.MonkeyPatch, given_up_ms: int, sentence: str
) -> None:
    """Whether the client is still trying or has given up."""
    monkeypatch.setattr(delivery, "DELIVERY_TIMEOUT_S", 1.5)
    options = {"message.timeout.ms": given_up_ms}
    with producer(NOBODY, **options) as stages, pytest.raises(KafkaUnavailable, match=sentence):
        letters(stages).deliver()


@pytest.mark.parametrize("given_up_ms", [60_000, 50])
def test_a_letter_that_is_tried_again_is_in_the_clients_queue_once(
    monkeypatch: pytest.MonkeyPatch, given_up_ms: int
) -> None:
    """Each copy in the queue would arrive as a letter of its own when the broker is back."""
    monkeypatch.setattr(delivery, "DELIVERY_TIMEOUT_S", 0.2)
    with producer(NOBODY, **{"message.timeout.ms": given_up_ms, "linger.ms": 0}) as stages:
        on_their_way = letters(stages)
        for _ in range(3):
            with pytest.raises(KafkaUnavailable):
                on_their_way.deliver()
            assert len(stages) <= NUM_LETTERS


def test_a_full_queue_is_an_outage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "DELIVERY_TIMEOUT_S", 0.1)
    options = {"queue.buffering.max.messages": 2}
    with (
        producer(NOBODY, **options) as stages,
        pytest.raises(KafkaUnavailable, match="takes no records; 2 wait"),
    ):
        letters(stages).deliver()


@pytest.mark.broker
def test_every_letter_arrives_once_through_a_small_queue(kafka: KafkaSettings) -> None:
    with producer(kafka, **{"queue.buffering.max.messages": 2}) as stages:
        letters(stages).deliver()
    causes = [dict(message.headers() or [])["dead-letter-cause"] for message in read_topic(kafka, topics.DEAD_LETTERS)]
    assert sorted(causes) == [f"cause {n}".encode() for n in range(NUM_LETTERS)]


def test_records_that_the_broker_does_not_take_are_an_error() -> None:
    with pytest.raises(KafkaUnavailable, match="timed out"):
        send_all(NOBODY, [republish_record(b"p")], timeout_s=0.2)
