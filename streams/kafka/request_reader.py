"""Reads a stage's topics of requests, with a consumer and a queue of its own.

The loop's consumer is in the group for these topics too, so the group says who owns their partitions, and the loop
commits their offsets. But it does not read them: in one queue, records would wait behind a million requests. Knows no
request.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from schemas.ids import Offset
from streams.kafka.clients import new_consumer
from streams.kafka.kafka_errors import translate
from streams.kafka.records import Place, offset_of, place_of
from streams.kafka.resume_points import NO_RESET
from streams.settings import KafkaSettings

_QUEUE_KBYTES: Final = 1024
"""Requests are small, so this holds some thousands of them."""


class RequestReader:
    """Used by one thread, that of the loop. Connects when it is first given a partition. Every method raises
    KafkaException or StreamsError."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._consumer: Consumer | None = None
        self._next: dict[Place, int] = {}
        """For each partition the offset of the first request that is not done."""
        self._held: list[Message] = []
        """Requests that are read and not done."""
        self.may_have_more = False
        """Whether it makes sense to look for further requests at once."""

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None

    def take(self, starts: Mapping[Place, int]) -> None:
        """Reads these partitions too. The start is an offset, or the special one of the log's beginning."""
        if starts:
            self._assign({**self._next, **starts})

    def give_back(self, places: Collection[Place]) -> None:
        """Reads these partitions no longer. Others may be among them."""
        if not self._next.keys().isdisjoint(places):
            self._assign({place: offset for place, offset in self._next.items() if place not in places})

    def _assign(self, starts: dict[Place, int]) -> None:
        if self._consumer is None:
            overrides = {
                "queued.max.messages.kbytes": _QUEUE_KBYTES,
                # Each loop has such a reader, and hardly ever is there a request: an idle one asks every 2 s only.
                "fetch.wait.max.ms": 2_000,
                **NO_RESET,
            }
            self._consumer = new_consumer(self._kafka, "nearline-requests", **overrides)
        self._next, self._held, self.may_have_more = starts, [], bool(starts)
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in starts.items()])

    def peek(self, max_requests: int) -> list[Message]:
        """The first requests that are not done, in the order of each partition's offsets. Does not wait."""
        wanted = max_requests - len(self._held)
        if self._consumer is not None and wanted > 0:
            messages = self._consumer.consume(wanted, 0)
            self.may_have_more = bool(messages)
            for message in messages:
                error = message.error()
                if error is not None:
                    raise translate(error)
            self._held += messages
        return self._held[:max_requests]

    def offsets_after(self, requests: Sequence[Message]) -> dict[Place, Offset]:
        """What to commit once these are done, the first ones that `peek` has returned. Without those of partitions that
        are not read any longer."""
        offsets = {place_of(request): Offset(offset_of(request) + 1) for request in requests}
        return {place: offset for place, offset in offsets.items() if place in self._next}

    def done(self, requests: Sequence[Message]) -> None:
        self._next |= self.offsets_after(requests)
        self._held = self._held[len(requests) :]
