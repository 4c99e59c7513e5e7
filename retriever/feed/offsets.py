"""Asks the broker for the offsets that the hot feed needs: where to start, where the topics end, how far the feed has
read.

Reads no records.
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

Place = tuple[str, int]
"""Topic and partition."""
Offsets = dict[Place, int]

_ASK_S: Final = 5.0


def partitions(consumer: Consumer, topic: str) -> list[Place]:
    """All partitions of the topic. Raises KafkaException, also if the topic does not exist yet."""
    metadata = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [(topic, number) for number in sorted(metadata.partitions)]


def since(consumer: Consumer, places: Iterable[Place], at_ms: int) -> Offsets:
    """The first offset whose record has this timestamp or a later one; the partition's end if there is none."""
    times = [TopicPartition(topic, number, max(at_ms, 0)) for topic, number in places]
    offsets: Offsets = {}
    for answer in consumer.offsets_for_times(times, timeout=_ASK_S):
        if answer.error is not None:
            raise KafkaException(answer.error)
        place = (answer.topic, answer.partition)
        offsets[place] = ends(consumer, [place])[place] if answer.offset == OFFSET_END else answer.offset
    return offsets


def beginnings(places: Iterable[Place]) -> Offsets:
    return dict.fromkeys(places, OFFSET_BEGINNING)


def ends(consumer: Consumer, places: Iterable[Place]) -> Offsets:
    """The offset after the last committed record of each partition."""
    return {
        (topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ASK_S)[1]
        for topic, number in places
    }


def next_to_read(consumer: Consumer, places: Iterable[Place]) -> Offsets:
    """The next offset of each partition from which something was read. Skipped control records count as read."""
    positions = consumer.position([TopicPartition(topic, number) for topic, number in places])
    return {(at.topic, at.partition): at.offset for at in positions if at.offset >= 0}
