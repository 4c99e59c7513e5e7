"""Hands records to a producer, and waits until the broker has them.

Owns the waiting for room in the client's queue, and what is sent outside a transaction. Knows no stage.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import new_producer
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.kafka_errors import translate
from streams.kafka.records import Output
from streams.settings import KafkaSettings

DELIVERY_TIMEOUT_S: Final = 30.0
_ROOM_S: Final = 0.1

OnDelivery = Callable[[KafkaError | None, Message], None]


def produce(
    producer: Producer, record: Output, *, on_delivery: OnDelivery | None = None, deadline: float = math.inf
) -> None:
    """Hands a record to the client, which sends it in the background. While the client's queue is full, waits for room.
    Raises KafkaUnavailable if there is none by `deadline`, a time of `time.monotonic`; StreamsError."""
    topic, key, value, headers, partition, timestamp_ms = record
    options: dict[str, Any] = {}
    if headers is not None:
        options["headers"] = headers
    if partition is not None:
        options["partition"] = partition
    if timestamp_ms is not None:
        options["timestamp"] = timestamp_ms
    if on_delivery is not None:
        options["on_delivery"] = on_delivery
    while True:
        try:
            producer.produce(topic, value, key, **options)
            return
        except BufferError:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"the broker takes no records; {len(producer)} wait in the client") from None
            producer.poll(_ROOM_S)
        except KafkaException as error:
            raise translate(error) from error


def send_all(kafka: KafkaSettings, records: Iterable[Output], timeout_s: float = 10.0) -> int:
    """Returns the number of records once the broker has all of them. Raises StreamsError if it does not have one of
    them; the caller may then send all of them again."""
    failures: list[StreamsError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(translate(error))

    overrides = {"message.timeout.ms": int(timeout_s * 1000), "on_delivery": delivered}
    producer = new_producer(kafka, **overrides)
    num_sent = 0
    for record in records:
        produce(producer, record)
        num_sent += 1
    num_waiting = producer.flush(timeout_s + 1)
    if failures:
        raise failures[0]
    if num_waiting:
        raise KafkaUnavailable(f"{num_waiting} records were not taken within {timeout_s:.0f} s")
    return num_sent


class DeadLetterDelivery:
    """Some dead letters on their way to the broker. One thread; nobody else may use the producer meanwhile.

    A letter that is still in the client's queue is not handed to it again: after an outage each copy would arrive.
    """

    def __init__(self, producer: Producer, stage: str, letters: Iterable[tuple[Message, str]]) -> None:
        """Each letter is the record as it came, and the cause in one sentence."""
        self._producer = producer
        self._to_send = deque(dead_letter_record(stage, message, cause) for message, cause in letters)
        self._failed: list[Output] = []
        self._failures: list[StreamsError] = []

    def deliver(self) -> None:
        """Returns once the broker has all letters. Raises StreamsError if it does not within DELIVERY_TIMEOUT_S; then
        call it again. If an acknowledgement was lost for minutes, its letter may be in the topic twice."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        self._to_send.extend(self._failed)
        self._failed.clear()
        self._failures.clear()
        while self._to_send:
            letter = self._to_send[0]
            produce(self._producer, letter, on_delivery=partial(self._delivered, letter), deadline=deadline)
            self._to_send.popleft()
        num_waiting = self._producer.flush(max(0.0, deadline - time.monotonic()))
        if self._failures:
            raise self._failures[0]
        if num_waiting:
            raise KafkaUnavailable(f"{num_waiting} dead letters were not taken within {DELIVERY_TIMEOUT_S:.0f} s")

    def _delivered(self, letter: Output, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(translate(error))
            self._failed.append(letter)
