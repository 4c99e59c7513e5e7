"""Reads a stretch of one partition, without a group, for somebody who asks.

Gives committed records only. Applies nothing and remembers nothing.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.ids import Offset
from streams.errors import KafkaUnavailable
from streams.kafka.clients import kafka_errors, new_consumer, translate
from streams.kafka.offsets import OffsetReader
from streams.kafka.partitions import partition_of
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_BATCH: Final = 1000
_QUIET_S: Final = 5.0
_WAIT_S: Final = 0.02
OFFSETS_TIMEOUT_S: Final = 5.0
_FIRST_STRETCH: Final = 1000
_GROWTH: Final = 4


def scanner(kafka: KafkaSettings) -> Consumer:
    """A consumer for `scan`. Close it."""
    return new_consumer(kafka, "nearline-scan", **{"enable.partition.eof": True, "fetch.wait.max.ms": 10})


def scan(
    consumer: Consumer,
    place: Place,
    start: Offset,
    end: Offset,
    *,
    to_the_end_s: float | None = None,
    deadline: float = math.inf,
) -> Iterator[Message]:
    """The records in [start, end) that are there and committed now. With `to_the_end_s` it goes on to `end`, and waits
    so long for transactions that are still open there. Raises KafkaUnavailable where not all are read by the
    `deadline`, a time of `time.monotonic`; StreamsError."""
    if start >= end:
        return
    quiet_s = max(_QUIET_S, to_the_end_s or 0.0)
    with kafka_errors():
        consumer.assign([TopicPartition(*place, start)])
        quiet_at = time.monotonic() + quiet_s
        while time.monotonic() < min(quiet_at, deadline):
            # It waits for a whole batch, or for the whole time.
            messages = consumer.consume(_BATCH, _WAIT_S)
            for message in messages:
                error = message.error()
                if (message.offset() or 0) >= end:
                    return
                if error is None:
                    yield message
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise translate(error)
                elif to_the_end_s is None:
                    return
            # Not before: who takes the messages may take its time.
            quiet_at = time.monotonic() + quiet_s if messages else quiet_at
    if time.monotonic() >= deadline:
        raise KafkaUnavailable(f"there was no time to read {place[0]} to its end")
    raise KafkaUnavailable(f"the broker sent nothing of {place[0]} for {quiet_s:.0f} s, or a transaction there is open")


def scan_topic(kafka: KafkaSettings, reader: OffsetReader, topic: str) -> Iterator[Message]:
    """All the records that are there and committed now, by partition and offset. Raises StreamsError."""
    places = reader.places([topic])
    starts, ends = reader.starts(places), reader.ends(places)
    with closing(scanner(kafka)) as consumer:
        for place in places:
            yield from scan(consumer, place, starts[place], ends[place])


def newest_value(kafka: KafkaSettings, topic: str, key: bytes) -> bytes | None:
    """The newest record of a key in a compacted topic, None where there is none. Raises StreamsError."""
    return newest_values(kafka, topic, [key]).get(key)


def newest_values(
    kafka: KafkaSettings,
    topic: str,
    keys: Iterable[bytes],
    *,
    max_offsets: int | None = None,
    timeout_s: float = OFFSETS_TIMEOUT_S,
) -> dict[bytes, bytes]:
    """The newest record of each of these keys in a compacted topic; without those that have none. Raises StreamsError.

    Looks from the ends in stretches that grow: what was changed last is found first, and at worst the keys' partitions
    are read once, or `max_offsets` at the ends of all of them together. `timeout_s` is for asking where the ends are.
    """
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        keys_by_place = _by_place(keys, reader.places([topic]))
        starts, ends = reader.starts(keys_by_place), reader.ends(keys_by_place)
    newest: dict[bytes, bytes | None] = {}
    with closing(scanner(kafka)) as consumer:
        for place, wanted in keys_by_place.items():
            start, stop = starts[place], ends[place]
            if max_offsets is not None:
                start = max(start, Offset(stop - max_offsets // len(keys_by_place)))
            newest |= _newest_in(consumer, place, wanted, start, stop)
    return {key: value for key, value in newest.items() if value is not None}


def _by_place(keys: Iterable[bytes], places: Sequence[Place]) -> dict[Place, set[bytes]]:
    by_place: dict[Place, set[bytes]] = {}
    for key in keys if places else ():
        by_place.setdefault(places[partition_of(key, len(places))], set()).add(key)
    return by_place


def _newest_in(
    consumer: Consumer, place: Place, keys: Set[bytes], start: Offset, stop: Offset
) -> dict[bytes, bytes | None]:
    """Of one partition's records in [start, stop); None for what was deleted."""
    newest: dict[bytes, bytes | None] = {}
    stretch = _FIRST_STRETCH
    while stop > start and len(newest) < len(keys):
        begin = max(start, Offset(stop - stretch))
        older: dict[bytes, bytes | None] = {}
        for message in scan(consumer, place, begin, stop):
            key = message.key()
            if key is not None and key in keys:
                older[key] = message.value()
        newest = {**older, **newest}
        stop, stretch = begin, stretch * _GROWTH
    return newest
