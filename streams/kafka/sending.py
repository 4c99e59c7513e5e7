"""Sends records outside a transaction, and returns only when the broker has them."""

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import new_producer, translate
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.records import Output
from streams.settings import KafkaSettings

DELIVERY_TIMEOUT_S: Final = 30.0
_ROOM_S: Final = 0.1
_ANY_PARTITION: Final = -1


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


class DeadLetterDelivery:
    """Some letters on their way to the broker. One thread; nobody else may use the producer meanwhile.

    A letter that the client still holds is not handed to it again: each copy would arrive once the broker is back.
    """

    def __init__(self, producer: Producer, stage: str, letters: Iterable[tuple[Message, str]]) -> None:
        """Each letter is the record as it was and one sentence."""
        self._producer = producer
        self._to_send = deque(dead_letter_record(stage, message, sentence) for message, sentence in letters)
        self._failed: list[Output] = []
        self._failures: list[StreamsError] = []

    def deliver(self) -> None:
        """Raises StreamsError where the broker does not have all letters in DELIVERY_TIMEOUT_S; call it again then.
        A letter whose acknowledgement was lost for minutes may be there twice."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        self._to_send.extend(self._failed)
        self._failed.clear()
        self._failures.clear()
        while self._to_send:
            self._hand_over(deadline)
        num_waiting = self._producer.flush(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]
        if num_waiting:
            raise _not_taken(num_waiting)

    def _hand_over(self, deadline: float) -> None:
        """The next letter, when the client has room for it."""
        letter = self._to_send[0]
        headers: list[tuple[str, str | bytes | None]] = list(letter.headers or [])
        on_delivery = partial(self._delivered, letter)
        try:
            self._producer.produce(letter.topic, letter.value, letter.key, headers=headers, on_delivery=on_delivery)
        except BufferError:
            if time.monotonic() > deadline:
                raise _not_taken(len(self._to_send) + len(self._producer)) from None
            self._producer.poll(_ROOM_S)
        else:
            self._to_send.popleft()

    def _delivered(self, letter: Output, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(translate(error))
            self._failed.append(letter)


def _not_taken(num_letters: int) -> KafkaUnavailable:
    return KafkaUnavailable(f"{num_letters} dead letters were not taken within {DELIVERY_TIMEOUT_S:.0f} s")
