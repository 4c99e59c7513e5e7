"""Records whose producer has another partitioner than ours: found, counted, and sent on to where they belong.

The rows of an entity are in the partition of its key, and nowhere else. Hops need no look: only we write them.
"""

import time
from collections import Counter
from functools import lru_cache
from typing import Final

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from schemas import topics
from schemas.errors import BadRecord
from schemas.headers import headers_of
from schemas.ids import Millis
from streams.kafka.dead_letters import LARGEST_BYTES, size_bytes
from streams.kafka.partitions import partition_of
from streams.kafka.records import Output

_MOVED: Final = frozenset((topics.POSTS, topics.MEMBERS, topics.REPUBLISH))
"""An activity is only counted: it goes to the partition of its post in any case."""
_LOOKED_AT: Final = _MOVED | {topics.ACTIVITY}
_KEYS_KEPT: Final = 16_384
"""Members act again and again, and the hash of a key costs as much as the reading of its event."""
_SAY_EVERY_S: Final = 60.0

log = structlog.get_logger(__name__)


class Misplaced:
    """One thread. `num_partitions` is that of every topic."""

    def __init__(self, num_partitions: int) -> None:
        self._num_partitions = num_partitions
        self._partition_of = lru_cache(_KEYS_KEPT)(partition_of)
        self.num_records: Counter[str] = Counter()
        """By topic, since the start."""
        self._said: Counter[str] = Counter()
        self._said_at: dict[str, float] = {}

    def sent_on(self, record: Message) -> Output | None:
        """The same record for the partition of its key; None: it is there, or may stay where it is. What is sent on is
        in its place by the same sum, so it is never sent on again. Raises BadRecord."""
        topic, key = record.topic(), record.key()
        if not key or topic not in _LOOKED_AT:
            return None
        partition = self._partition_of(key, self._num_partitions)
        if partition == record.partition():
            return None
        self.num_records[topic] += 1
        if topic not in _MOVED:
            return None
        headers = headers_of(record)
        if size_bytes(key, record.value(), headers) > LARGEST_BYTES:
            raise BadRecord(
                "the record is in a wrong partition and too large to be moved; use partitioner=murmur2_random"
            )
        return Output(topic, key, record.value(), headers or None, partition, _timestamp(record))

    def say(self) -> None:
        """Of each topic at most once a minute."""
        if self.num_records == self._said:
            return
        now = time.monotonic()
        for topic, number in (self.num_records - self._said).items():
            if now >= self._said_at.get(topic, -_SAY_EVERY_S) + _SAY_EVERY_S:
                log.warning(
                    "records are not in the partitions of their keys; set partitioner=murmur2_random in their producer",
                    topic=topic,
                    num_records=number,
                    so_far=self.num_records[topic],
                )
                self._said[topic], self._said_at[topic] = self.num_records[topic], now


def _timestamp(record: Message) -> Millis | None:
    """Its event may not be far past it, and freshness is counted from it."""
    kind, timestamp_ms = record.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else Millis(timestamp_ms)
