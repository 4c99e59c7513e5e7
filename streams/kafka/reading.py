"""Reads records that are there now, without a consumer group, for somebody who asks about them.

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
from streams.kafka.clients import new_consumer
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.partitions import partition_of
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_BATCH: Final = 1000
_QUIET_S: Final = 5.0
"""How long the broker may send nothing before reading fails."""
_WAIT_S: Final = 0.02
OFFSETS_TIMEOUT_S: Final = 5.0
_FIRST_STRETCH: Final = 1000
_GROWTH: Final = 4


def scanner(kafka: KafkaSettings) -> Consumer:
    """A consumer for `scan` and `scan_all`. Close it."""
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
    """The records of one partition in [start, end) that are committed.

    By default it stops where the broker reports the end for a reader of committed records: before a transaction that
    is still open. With `to_the_end_s` it goes on to `end`, and waits that long for such a transaction to be ended.
    Raises KafkaUnavailable if the records are not read by `deadline`, a time of `time.monotonic`; StreamsError."""
    if start >= end:
        return
    quiet_s = max(_QUIET_S, to_the_end_s or 0.0)
    with kafka_errors():
        consumer.assign([TopicPartition(*place, start)])
        quiet_until = time.monotonic() + quiet_s
        while time.monotonic() < min(quiet_until, deadline):
            # A short wait: `consume` returns only when it has a whole batch or the wait is over.
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
            # Counted from here, because the caller may have taken its time with the messages.
            quiet_until = time.monotonic() + quiet_s if messages else quiet_until
    if time.monotonic() >= deadline:
        raise KafkaUnavailable(f"there was no time to read {place.topic} to its end")
    raise KafkaUnavailable(
        f"the broker sent nothing of {place.topic} for {quiet_s:.0f} s, or a transaction there is open"
    )


def scan_all(
    consumer: Consumer,
    starts: Offsets,
    ends: Offsets,
    *,
    to_the_end_s: float | None = None,
    deadline: float = math.inf,
) -> Iterator[Message]:
    """`scan` of every partition in `ends`, one after the other."""
    for place, end in ends.items():
        yield from scan(consumer, place, starts[place], end, to_the_end_s=to_the_end_s, deadline=deadline)


def scan_topic(kafka: KafkaSettings, reader: OffsetReader, topic: str) -> Iterator[Message]:
    """All records of a topic that are there and committed now, by partition and offset. Raises StreamsError."""
    starts, ends = reader.bounds([topic])
    with closing(scanner(kafka)) as consumer:
        yield from scan_all(consumer, starts, ends)


def newest_value(kafka: KafkaSettings, topic: str, key: bytes) -> bytes | None:
    """The newest record of a key in a compacted topic; None if there is none. Raises StreamsError."""
    return newest_values(kafka, topic, [key]).get(key)


def newest_values(
    kafka: KafkaSettings,
    topic: str,
    keys: Iterable[bytes],
    *,
    max_offsets: int | None = None,
    timeout_s: float = OFFSETS_TIMEOUT_S,
) -> dict[bytes, bytes]:
    """The newest record of each of these keys in a compacted topic; keys without a record are left out.

    Reads backwards from the ends, in stretches that grow: recent records are found quickly, and at worst each partition
    of a key is read once. `max_offsets` limits how much is read at the ends of all these partitions together.
    `timeout_s` is for asking where the ends are. Raises StreamsError.
    """
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        keys_by_place = _by_place(keys, reader.places([topic]))
        starts, ends = reader.starts(keys_by_place), reader.ends(keys_by_place)
    newest: dict[bytes, bytes | None] = {}
    with closing(scanner(kafka)) as consumer:
        for place, place_keys in keys_by_place.items():
            start, end = starts[place], ends[place]
            if max_offsets is not None:
                start = max(start, Offset(end - max_offsets // len(keys_by_place)))
            newest |= _newest_in(consumer, place, place_keys, start, end)
    return {key: value for key, value in newest.items() if value is not None}


def _by_place(keys: Iterable[bytes], places: Sequence[Place]) -> dict[Place, set[bytes]]:
    by_place: dict[Place, set[bytes]] = {}
    for key in keys if places else ():
        by_place.setdefault(places[partition_of(key, len(places))], set()).add(key)
    return by_place


def _newest_in(
    consumer: Consumer, place: Place, keys: Set[bytes], start: Offset, end: Offset
) -> dict[bytes, bytes | None]:
    """The newest value of each key in [start, end) of one partition; None if its newest record is a tombstone."""
    newest: dict[bytes, bytes | None] = {}
    stretch = _FIRST_STRETCH
    while end > start and len(newest) < len(keys):
        first = max(start, Offset(end - stretch))
        older: dict[bytes, bytes | None] = {}
        for message in scan(consumer, place, first, end):
            key = message.key()
            if key is not None and key in keys:
                older[key] = message.value()
        newest = {**older, **newest}
        end, stretch = first, stretch * _GROWTH
    return newest
