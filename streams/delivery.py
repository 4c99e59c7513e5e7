"""Sends dead letters outside a transaction, and returns only when the broker has them."""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from streams.dead_letters import dead_letter_record
from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka import translate

DELIVERY_TIMEOUT_S: Final = 30.0


def deliver_dead_letters(producer: Producer, stage: str, letters: Iterable[tuple[Message, str]]) -> None:
    """Each letter is the record as it was and one sentence. Raises StreamsError when one of them did not arrive; the
    caller sends all of them again, and a letter may then be there twice."""
    failures: list[StreamsError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(translate(error))

    for message, sentence in letters:
        letter = dead_letter_record(stage, message, sentence)
        headers: list[tuple[str, str | bytes | None]] = list(letter.headers or [])
        producer.produce(letter.topic, letter.value, letter.key, headers=headers, on_delivery=delivered)
    waiting = producer.flush(DELIVERY_TIMEOUT_S)
    if failures:
        raise failures[0]
    if waiting:
        raise KafkaUnavailable(f"{waiting} dead letters were not taken within {DELIVERY_TIMEOUT_S:.0f} s")
