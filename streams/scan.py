"""Reads a stretch of one partition, without a group, for somebody who asks.

Gives committed records only. Applies nothing and remembers nothing.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.ids import Offset
from streams.errors import KafkaUnavailable
from streams.kafka import consumer_config, kafka_errors, translate
from streams.lag import OffsetReader
from streams.partitions import partition_of
from streams.records import Place
from streams.settings import KafkaSettings

_BATCH: Final = 1000
_QUIET_S: Final = 5.0
_WAIT_S: Final = 0.02
_FIRST_STRETCH: Final = 1000
_GROWTH: Final = 4


def scanner(kafka: KafkaSettings) -> Consumer:
    """A consumer for `scan`. Close it."""
    return Consumer(consumer_config(kafka, "nearline-scan", **{"enable.partition.eof": True, "fetch.wait.max.ms": 10}))


def scan(consumer: Consumer, place: Place, start: Offset, end: Offset) -> Iterator[Message]:
    """The records in [start, end) that are there and committed now. Raises StreamsError."""
    if start >= end:
        return
    with kafka_errors():
        consumer.assign([TopicPartition(*place, start)])
        quiet_at = time.monotonic() + _QUIET_S
        while time.monotonic() < quiet_at:
            # It waits for a whole batch, or for the whole time.
            messages = consumer.consume(_BATCH, _WAIT_S)
            quiet_at = time.monotonic() + _QUIET_S if messages else quiet_at
            for message in messages:
                error = message.error()
                if (message.offset() or 0) >= end or (error is not None and error.code() == KafkaError._PARTITION_EOF):
                    return
                if error is not None:
                    raise translate(error)
                yield message
    raise KafkaUnavailable(f"the broker sent nothing of {place[0]} for {_QUIET_S:.0f} s")


def scan_topic(kafka: KafkaSettings, reader: OffsetReader, topic: str) -> Iterator[Message]:
    """All the records that are there and committed now, by partition and offset. Raises StreamsError."""
    places = reader.places([topic])
    starts, ends = reader.starts(places), reader.ends(places)
    with closing(scanner(kafka)) as consumer:
        for place in places:
            yield from scan(consumer, place, starts[place], ends[place])


def newest_value(kafka: KafkaSettings, topic: str, key: bytes) -> bytes | None:
    """The newest record of a key in a compacted topic, None where there is none. Raises StreamsError.

    Looks from the end in stretches that grow: what was changed last is found first, and at worst the whole partition is
    read once.
    """
    with closing(OffsetReader(kafka)) as reader:
        places = reader.places([topic])
        if not places:
            return None
        place = places[partition_of(key, len(places))]
        start, stop = reader.starts([place])[place], reader.ends([place])[place]
    stretch = _FIRST_STRETCH
    with closing(scanner(kafka)) as consumer:
        while stop > start:
            begin = max(start, Offset(stop - stretch))
            found = [one.value() for one in scan(consumer, place, begin, stop) if one.key() == key]
            if found:
                return found[-1]
            stop, stretch = begin, stretch * _GROWTH
    return None
