"""How far each stage is behind: ends of topics, committed offsets of groups, and the first record not yet done.

Owns the reading of offsets. Knows no stage's work, and nothing of what the records say.

A committed offset below the end need not be lag: what is between may be control records of transactions, which no
reader ever sees. So a doubtful partition is looked at: the first record that a stage could still read, or none.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from schemas import topics
from schemas.ids import Generation, Millis, Offset, Partition
from streams.kafka import admin, consumer_config, kafka_errors, translate
from streams.settings import KafkaSettings

_PROBE_FETCH_BYTES: Final = 16 * 1024
"""One record of a partition is enough; the broker sends at least one whole batch."""

_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

Place = tuple[str, Partition]
"""A topic and one of its partitions."""

Offsets = dict[Place, Offset]


class StageReads(NamedTuple):
    """A stage, its consumer group and what it reads."""

    stage: str
    group: str
    topics: tuple[str, ...]


class FirstRecord(NamedTuple):
    """The first record that a reader of committed records sees from some offset on; `timestamp` is Kafka's."""

    offset: Offset
    timestamp_ms: Millis


class Lag(NamedTuple):
    """`records` not yet done, None when unknown; `oldest_ms` is the timestamp of the first of them."""

    stage: str
    group: str
    topic: str
    records: int | None
    oldest_ms: Millis | None


def stage_reads(generation: Generation | None) -> list[StageReads]:
    """Every stage that has a consumer group; those of a generation only where one is named."""
    reads = [
        StageReads("contexts", topics.CONTEXTS_GROUP, (*topics.INPUTS, *topics.HOPS, topics.REPUBLISH)),
        StageReads("trending", topics.TRENDING_GROUP, (topics.ACTIVITY,)),
    ]
    if generation is not None:
        contexts = (topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
        embeddings = (topics.post_embeddings(generation), topics.member_embeddings(generation))
        reads.append(StageReads("encode", topics.encode_group(generation), contexts))
        reads.append(StageReads("index", topics.index_group(generation), embeddings))
    return reads


class OffsetReader:
    """Asks the broker for offsets. One thread; every method may block up to `timeout_s` and raises StreamsError."""

    def __init__(self, kafka: KafkaSettings, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._admin = admin(kafka)
        self._kafka = kafka
        self._prober: Consumer | None = None

    def close(self) -> None:
        if self._prober is not None:
            self._prober.close()

    def places(self, names: Iterable[str]) -> list[Place]:
        """All partitions of those of these topics that exist."""
        with kafka_errors():
            found = self._admin.list_topics(timeout=self._timeout_s).topics
        return [
            (name, Partition(number)) for name in names if name in found for number in sorted(found[name].partitions)
        ]

    def ends(self, places: Iterable[Place]) -> Offsets:
        """High watermarks, so that what is written but not yet committed by its transaction counts too."""
        return self._list_offsets(places, _LATEST)

    def starts(self, places: Iterable[Place]) -> Offsets:
        return self._list_offsets(places, _EARLIEST)

    def committed(self, group: str, places: Iterable[Place]) -> dict[Place, Offset | None]:
        """None where the group has committed nothing."""
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*place) for place in places])
        with kafka_errors():
            future = self._admin.list_consumer_group_offsets([wanted], request_timeout=self._timeout_s)[group]
            found = future.result().topic_partitions
        return {_place(one): Offset(one.offset) if one.offset >= 0 else None for one in found}

    def first_records(self, offsets: Offsets, ends: Offsets, timeout_s: float) -> dict[Place, FirstRecord | None]:
        """For each place the first record in [offset, end), None when no reader will ever see one.

        Left out: where time ran out, and where an open transaction keeps the answer back.
        """
        prober = self._probe_consumer()
        found: dict[Place, FirstRecord | None] = {}
        deadline = time.monotonic() + timeout_s
        with kafka_errors():
            prober.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
            while len(found) < len(offsets) and (wait_s := deadline - time.monotonic()) > 0:
                message = prober.poll(wait_s)
                if message is not None:
                    _take_probe(message, ends, found)
            prober.unassign()
        return found

    def _probe_consumer(self) -> Consumer:
        if self._prober is None:
            self._prober = Consumer(
                consumer_config(
                    self._kafka,
                    "nearline-lag",
                    **{
                        "enable.partition.eof": True,
                        "fetch.message.max.bytes": _PROBE_FETCH_BYTES,
                        "queued.max.messages.kbytes": 1024,
                        "fetch.wait.max.ms": 10,
                    },
                )
            )
        return self._prober

    def _list_offsets(self, places: Iterable[Place], spec: OffsetSpec) -> Offsets:
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}
        with kafka_errors():
            futures: dict[TopicPartition, Future[Any]] = self._admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
            )
            return {_place(one): Offset(future.result().offset) for one, future in futures.items()}


def read_lags(reader: OffsetReader, reads: Iterable[StageReads], probe_s: float) -> list[Lag]:
    """One line for each stage and topic; unknown where the topic does not exist yet. Raises StreamsError.

    `probe_s` bounds the look at first records, for each stage.
    """
    reads = list(reads)
    places = reader.places(sorted({name for read in reads for name in read.topics}))
    starts, ends = reader.starts(places), reader.ends(places)
    lags = []
    for read in reads:
        own = [place for place in places if place[0] in read.topics]
        done = going_on_at(reader.committed(read.group, own), starts) if own else {}
        open_offsets = {place: offset for place, offset in done.items() if offset < ends[place]}
        firsts = reader.first_records(open_offsets, ends, probe_s) if open_offsets else {}
        lags += [_topic_lag(read, name, done, ends, firsts) for name in read.topics]
    return lags


def going_on_at(committed: Mapping[Place, Offset | None], starts: Offsets) -> Offsets:
    """Where a group will go on reading: what retention has removed is behind it."""
    return {place: max(starts[place], offset or Offset(0)) for place, offset in committed.items()}


def _topic_lag(
    read: StageReads, topic: str, done: Offsets, ends: Offsets, firsts: Mapping[Place, FirstRecord | None]
) -> Lag:
    own = [place for place in done if place[0] == topic]
    if not own:
        return Lag(read.stage, read.group, topic, None, None)
    behind = [place for place in own if done[place] < ends[place] and firsts.get(place, True) is not None]
    seen = [first.timestamp_ms for place in behind if (first := firsts.get(place)) is not None]
    return Lag(
        read.stage,
        read.group,
        topic,
        sum(ends[place] - done[place] for place in behind),
        min(seen, default=None),
    )


def _take_probe(message: Message, ends: Offsets, found: dict[Place, FirstRecord | None]) -> None:
    """The first thing a partition says decides: a record, or its end."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise translate(error)
    place = (str(message.topic()), Partition(message.partition() or 0))
    offset = Offset(message.offset() or 0)
    if place in found:
        return
    if error is None and offset < ends[place]:
        found[place] = FirstRecord(offset, Millis(message.timestamp()[1]))
    elif offset >= ends[place]:
        found[place] = None


def _place(one: TopicPartition) -> Place:
    return one.topic, Partition(one.partition)
