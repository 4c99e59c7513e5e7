"""Where the hot feed reads: which partitions, from which offset, up to which one it counts as caught up.

Asks the broker; applies nothing. A place is (topic, partition).
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

Place = tuple[str, int]
Offsets = dict[Place, int]

_ASK_S: Final = 5.0


def partitions(consumer: Consumer, topic: str) -> list[Place]:
    """Raises KafkaException, also when there is no such topic (yet)."""
    metadata = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [(topic, number) for number in sorted(metadata.partitions)]


def since(consumer: Consumer, places: Iterable[Place], at_ms: int) -> Offsets:
    """The first offset whose record has this timestamp or a later one; the end where there is none."""
    asked = [TopicPartition(topic, number, max(at_ms, 0)) for topic, number in places]
    found: Offsets = {}
    for answer in consumer.offsets_for_times(asked, timeout=_ASK_S):
        if answer.error is not None:
            raise KafkaException(answer.error)
        place = (answer.topic, answer.partition)
        found[place] = ends(consumer, [place])[place] if answer.offset == OFFSET_END else answer.offset
    return found


def beginnings(places: Iterable[Place]) -> Offsets:
    return dict.fromkeys(places, OFFSET_BEGINNING)


def ends(consumer: Consumer, places: Iterable[Place]) -> Offsets:
    """One past the last committed record of each."""
    return {
        (topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ASK_S)[1]
        for topic, number in places
    }


def reached(consumer: Consumer, places: Iterable[Place]) -> Offsets:
    """The next offset of each partition of which something was read. Control records count."""
    asked = [TopicPartition(topic, number) for topic, number in places]
    return {(at.topic, at.partition): at.offset for at in consumer.position(asked) if at.offset >= 0}
