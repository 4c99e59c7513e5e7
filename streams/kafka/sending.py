"""Sends dead letters outside a transaction, and returns only when the broker has them."""

import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import translate
from streams.kafka.dead_letters import dead_letter_record
from streams.kafka.records import Output

DELIVERY_TIMEOUT_S: Final = 30.0
_ROOM_S: Final = 0.1


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
