"""How far `post-vectors` is written, partition by partition, by whom.

The workers of all generations are in one group, which hands out the partitions of `post-vectors` itself. So each has
one writer at any time, also while one generation takes over from another, and a writer that has lost its partition is
fenced. Who owns a partition reads the embeddings of the same number. What is committed is how far it has read them, and
in which reign: in a new one everything is read from the start.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas.ids import Offset, Partition
from schemas.post_vectors import REIGN_PREFIX
from schemas.topics import POST_VECTORS, POST_VECTORS_GROUP
from streams.encode.post_vectors.reign import Reign
from streams.kafka.clients import new_consumer
from streams.kafka.deleted_unread import Committed, metadata_of
from streams.kafka.group_progress import fetch_committed
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.kafka.records import Place
from streams.kafka.resume_points import ResumePoint, find_resume_points
from streams.settings import KafkaSettings

_CALL_S: Final = 30.0
_TAG: Final = re.compile(rb"%s([^;]*);" % REIGN_PREFIX.encode())

log = structlog.get_logger(__name__)

Written = dict[Partition, tuple[str, Offset]]
"""For each partition the tag of the newest reign that has written to it, and how far it has read its source."""


class ReignProgress:
    """The `Progress` of one reign's loop."""

    def __init__(self, kafka: KafkaSettings, reign: Reign, still_serves: Callable[[], bool]) -> None:
        """`still_serves` asks the log of the generations now whether this is still the reign."""
        self._kafka = kafka
        self._reign = reign
        self._still_serves = still_serves

    def places(self, partitions: Sequence[TopicPartition]) -> list[Place]:
        return [Place(self._reign.source, Partition(at.partition)) for at in partitions]

    def resume_points(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> Mapping[Place, ResumePoint]:
        written = _parse(fetch_committed(consumer, POST_VECTORS_GROUP, partitions))
        if not self._still_serves():
            # This worker has not heard of the end of its reign yet.
            log.warning("another generation writes the post vectors now", not_any_more=self._reign.generation)
            return {}
        mine = {Place(self._reign.source, num): at for num, (tag, at) in written.items() if tag == self._reign.tag}
        points = find_resume_points(
            self._kafka, POST_VECTORS_GROUP, {place: Committed(at, 0) for place, at in mine.items()}, _CALL_S
        )
        new = [place for place in self.places(partitions) if place not in points]
        return points | {place: ResumePoint(OFFSET_BEGINNING, None, 0) for place in new}

    def to_commit(self, place: Place, offset: Offset, deleted: int) -> TopicPartition:
        return TopicPartition(POST_VECTORS, place.partition, offset, f"{REIGN_PREFIX}{self._reign.tag};")


def read_written(kafka: KafkaSettings, partitions: Sequence[Partition]) -> Written:
    """Partitions that nobody has written to are left out. Raises StreamsError."""
    overrides = {"isolation.level": "read_uncommitted"}
    with kafka_errors(), closing(new_consumer(kafka, POST_VECTORS_GROUP, **overrides)) as client:
        return _parse(client.committed([TopicPartition(POST_VECTORS, number) for number in partitions], _CALL_S))


def _parse(answer: Sequence[TopicPartition]) -> Written:
    written: Written = {}
    for at in answer:
        if at.error is not None:
            raise translate(at.error)
        match = _TAG.match(metadata_of(at))
        if at.offset >= 0 and match:
            written[Partition(at.partition)] = match[1].decode(errors="replace"), Offset(at.offset)
    return written
