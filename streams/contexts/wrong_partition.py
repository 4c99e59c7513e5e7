"""Finds records that a producer with another partitioner has put into a wrong partition, and moves them.

The row of an entity is in the partition of its key and nowhere else. Hops are not checked: only this stage writes them.
"""

import time
from collections import Counter
from collections.abc import Callable
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

_MOVED_TOPICS: Final = frozenset((topics.POSTS, topics.MEMBERS, topics.REPUBLISH))
"""An activity in a wrong partition is counted but not moved: its hop goes to the partition of its post in any case."""
_CHECKED_TOPICS: Final = _MOVED_TOPICS | {topics.ACTIVITY}
_CACHED_KEYS: Final = 16_384
"""Members act again and again, and to hash a key takes as long as to decode its event."""
_LOG_EVERY_S: Final = 60.0

log = structlog.get_logger(__name__)


class RecordsInWrongPartition:
    """For one thread. Every topic has `num_partitions`."""

    def __init__(self, num_partitions: int, on_misplaced: Callable[[str], None] = lambda _: None) -> None:
        """`on_misplaced` is told the topic of each of these records."""
        self._num_partitions = num_partitions
        self._on_misplaced = on_misplaced
        self._partition_of = lru_cache(_CACHED_KEYS)(partition_of)
        self.num_records: Counter[str] = Counter()
        """By topic, since the start."""
        self._num_logged: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def moved(self, record: Message) -> Output | None:
        """The same record, to be sent to the partition of its key; None if it is there already or may stay. A moved
        record is never moved again, because the same hash decides. Raises BadRecord."""
        topic, key = topics.first_name(record.topic() or ""), record.key()
        if not key or topic not in _CHECKED_TOPICS:
            return None
        partition = self._partition_of(key, self._num_partitions)
        if partition == record.partition():
            return None
        self.num_records[topic] += 1
        self._on_misplaced(topic)
        if topic not in _MOVED_TOPICS:
            return None
        headers = headers_of(record)
        if size_bytes(key, record.value(), headers) > LARGEST_BYTES:
            raise BadRecord(
                "the record is in a wrong partition and too large to be moved; use partitioner=murmur2_random"
            )
        return Output(topic, key, record.value(), headers or None, partition, _timestamp(record))

    def log_new(self) -> None:
        """Warns of the records in wrong partitions since the last warning: once a minute for each topic."""
        if self.num_records == self._num_logged:
            return
        now = time.monotonic()
        for topic, num_new in (self.num_records - self._num_logged).items():
            if now >= self._logged_at.get(topic, -_LOG_EVERY_S) + _LOG_EVERY_S:
                log.warning(
                    "records are not in the partitions of their keys; set partitioner=murmur2_random in their producer",
                    topic=topic,
                    num_records=num_new,
                    so_far=self.num_records[topic],
                )
                self._num_logged[topic], self._logged_at[topic] = self.num_records[topic], now


def _timestamp(record: Message) -> Millis | None:
    """Kept for the moved record: an event may not be far past it, and freshness is measured from it."""
    kind, timestamp_ms = record.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else Millis(timestamp_ms)
