"""The lists that were written last, read when a partition is taken over.

The list of partition n is in partition n of `trending`, so that its newest record is all there is to read, however
much the compaction has yet to do.
"""

from collections.abc import Iterable
from typing import Final

import structlog
from confluent_kafka import Consumer, TopicPartition

from schemas import topics
from schemas.errors import BadRecord
from schemas.ids import Partition
from schemas.trending import TrendingList, decode_trending
from streams.errors import KafkaUnavailable
from streams.kafka.clients import consumer_config, kafka_errors, translate
from streams.settings import KafkaSettings

log = structlog.get_logger()

CALL_TIMEOUT_S: Final = 5.0


def list_key(partition: Partition) -> bytes:
    return b"%d" % partition


def last_lists(kafka: KafkaSettings, partitions: Iterable[Partition]) -> list[TrendingList]:
    """What was written last for these partitions, where anything was. Raises StreamsError."""
    with kafka_errors():
        # The group is never joined, nothing is committed.
        consumer = Consumer(consumer_config(kafka, "nearline-trending-lists"))
        try:
            found = [_last_list(consumer, partition) for partition in partitions]
        finally:
            consumer.close()
    return [each for each in found if each is not None]


def _last_list(consumer: Consumer, partition: Partition) -> TrendingList | None:
    place = TopicPartition(topics.TRENDING, partition)
    _, end = consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S)
    if end == 0:
        return None
    consumer.assign([TopicPartition(topics.TRENDING, partition, end - 1)])
    message = consumer.poll(CALL_TIMEOUT_S)
    if message is None:
        raise KafkaUnavailable(f"the newest list of partition {partition} of {topics.TRENDING} cannot be read")
    if (failure := message.error()) is not None:
        raise translate(failure)
    try:
        return decode_trending(message.value() or b"")
    except BadRecord as error:
        log.warning("a trending list cannot be read and is started anew", partition=partition, error=str(error))
        return None
