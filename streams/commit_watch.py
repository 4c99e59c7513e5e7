"""Sees from outside that a consumer group has stopped moving while there is something to read."""

import time
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from schemas.ids import Offset, Partition
from streams.kafka import consumer_config, kafka_errors
from streams.settings import KafkaSettings

CALL_TIMEOUT_S: Final = 5.0


class CommitWatch:
    """Asks the broker alone, so that nothing which is broken inside the stage can hide it. One thread at a time."""

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topic: str,
        patience_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._patience_s = patience_s
        self._clock = clock
        # Never subscribes, so it is no member of the group.
        self._consumer = Consumer(consumer_config(kafka, group, **{"enable.partition.eof": True}))
        self._moved: dict[Partition, tuple[int, float]] = {}

    def close(self) -> None:
        self._consumer.close()

    def stalled(self, partitions: Collection[Partition]) -> list[Partition]:
        """Those whose committed offset has not moved for `patience_s` and that have a record at or after it. Raises
        StreamsError when the broker cannot be asked: then nothing is known."""
        now = self._clock()
        found: list[Partition] = []
        with kafka_errors():
            for partition, committed in self._committed(partitions).items():
                offset, since = self._moved.get(partition, (None, now))
                if offset != committed:
                    since = now
                self._moved[partition] = (committed, since)
                if now - since >= self._patience_s and self._has_record(partition, committed):
                    found.append(partition)
        return found

    def _committed(self, partitions: Collection[Partition]) -> dict[Partition, Offset]:
        self._moved = {partition: seen for partition, seen in self._moved.items() if partition in partitions}
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        return {
            Partition(place.partition): Offset(place.offset)
            for place in (self._consumer.committed(places, timeout=CALL_TIMEOUT_S) if places else [])
        }

    def _has_record(self, partition: Partition, committed: Offset) -> bool:
        """Looks, because what is between the committed offset and the end may be control records alone."""
        place = TopicPartition(self._topic, partition)
        first, end = self._consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S)
        if end <= max(first, committed):
            return False
        self._consumer.assign([TopicPartition(self._topic, partition, max(first, committed))])
        try:
            message = self._consumer.poll(CALL_TIMEOUT_S)
            return message is not None and message.error() is None
        finally:
            self._consumer.unassign()
