"""Asks the broker for offsets: which partitions there are, where they begin and end, where to start reading, how far a
consumer has read.

Reads no records. Every function may block for some seconds and raises KafkaException.
"""

import math
from collections.abc import Iterable
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

Place = tuple[str, int]
"""Topic and partition."""
PlaceOffsets = dict[Place, int]

_ASK_S: Final = 5.0
_AT_THE_END: Final = -1
"""The "time" for which the broker tells the end: the offset after the last committed record."""


def partitions(consumer: Consumer, topic: str) -> list[Place]:
    """All partitions of the topic. Raises KafkaException also if the topic does not exist yet."""
    metadata = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [(topic, number) for number in sorted(metadata.partitions)]


def since(consumer: Consumer, places: Iterable[Place], at_ms: int) -> PlaceOffsets:
    """The first offset whose record has this timestamp or a later one; the partition's end if there is none. With 0 it
    is the first record that is left."""
    places = list(places)
    # Before the other question. What is written or committed between the two comes after these ends, and is read.
    asked_ends = ends(consumer, places)
    offsets = _at(consumer, places, max(at_ms, 0))
    return {place: asked_ends[place] if offset == OFFSET_END else offset for place, offset in offsets.items()}


def window_starts(consumer: Consumer, places: Iterable[Place], window_s: float, now_s: float) -> PlaceOffsets:
    """Where a window of the last seconds begins. Of an endless one, the very start of the partitions."""
    if math.isinf(window_s):
        return {place: offsets.start for place, offsets in ranges(consumer, places).items()}
    return since(consumer, places, int((now_s - window_s) * 1000))


def ends(consumer: Consumer, places: Iterable[Place]) -> PlaceOffsets:
    """The offset after the last committed record of each partition. One request to each broker."""
    return _at(consumer, places, _AT_THE_END)


def ranges(consumer: Consumer, places: Iterable[Place]) -> dict[Place, range]:
    """The offsets from which each partition can be read; its end is among them."""
    watermarks = {place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=_ASK_S) for place in places}
    return {place: range(low, high + 1) for place, (low, high) in watermarks.items()}


def next_to_read(consumer: Consumer, places: Iterable[Place]) -> PlaceOffsets:
    """The next offset of each partition from which something was read. Skipped control records count as read."""
    positions = consumer.position([TopicPartition(topic, number) for topic, number in places])
    return {(at.topic, at.partition): at.offset for at in positions if at.offset >= 0}


def _at(consumer: Consumer, places: Iterable[Place], at_ms: int) -> PlaceOffsets:
    times = [TopicPartition(topic, number, at_ms) for topic, number in places]
    answers = consumer.offsets_for_times(times, timeout=_ASK_S) if times else []
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


def sentence(error: Exception) -> str:
    """What the client says, without its codes."""
    return str(error.args[0].str()) if isinstance(error, KafkaException) else str(error)
