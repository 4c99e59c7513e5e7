"""Reads the list that was written last for a partition, when a worker takes the partition over.

Partition n of `trending` holds only the lists of partition n of `activity`. So its newest record is the list, and
nothing else has to be read, even if older lists are not compacted away yet.
"""

from collections.abc import Iterable
from contextlib import closing
from typing import Final

import structlog
from confluent_kafka import Consumer, TopicPartition

from schemas import topics
from schemas.errors import BadRecord
from schemas.ids import Partition
from schemas.trending import TrendingList, decode_trending
from streams.errors import KafkaUnavailable
from streams.kafka.clients import new_consumer
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.settings import KafkaSettings

log = structlog.get_logger()

CALL_TIMEOUT_S: Final = 5.0


def list_key(partition: Partition) -> bytes:
    return b"%d" % partition


def last_lists(kafka: KafkaSettings, partitions: Iterable[Partition]) -> list[TrendingList]:
    """The newest list of each partition. Partitions without one are left out. Raises StreamsError."""
    # The consumer never joins its group and commits nothing.
    with kafka_errors(), closing(new_consumer(kafka, "nearline-trending-lists")) as consumer:
        lists = [_last_list(consumer, partition) for partition in partitions]
    return [trending for trending in lists if trending is not None]


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
        log.warning("a trending list cannot be read and starts empty", partition=partition, error=str(error))
        return None
