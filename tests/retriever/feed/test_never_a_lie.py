"""Whatever happens to the log, the broker and the process: while the hot feed says that all is well, the hot tier holds
what its floor promises, and no post that a newer record has changed or deleted.

The feed and the hot tier are real; the broker is a list of records in memory.
"""

import random
import tempfile
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from retriever.errors import RetrieverUnavailable
from retriever.feed import follower
from retriever.feed.hot_feed import HotFeed
from retriever.feed.snapshots import Snapshots
from retriever.feed.trending_lists import TrendingLists
from schemas import topics
from schemas.embeddings import encode_embedding
from schemas.ids import Generation, Partition, PostId
from tests.kit.data.embeddings import DIMENSION, post_embedding

GENERATION = Generation("g")
TOPIC = topics.post_embeddings(GENERATION)
POSTS, PARTITIONS = 5, 2
WINDOW_S, STALE_AFTER_S = 10.0, 2.0


class Record(NamedTuple):
    """As confluent-kafka gives it out; `problem` is the code of an error instead."""

    place: int
    number: int
    body: bytes | None
    at_s: float
    post_id: str = ""
    revision: int = 0
    problem: int | None = None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self.place

    def offset(self) -> int:
        return self.number

    def value(self) -> bytes | None:
        return self.body

    def error(self) -> KafkaError | None:
        return None if self.problem is None else KafkaError(self.problem)

    def timestamp(self) -> tuple[int, int]:
        return 1, int(self.at_s * 1000)

    def headers(self) -> None:
        return None


class Log:
    """What the broker holds, and what was ever written."""

    def __init__(self) -> None:
        self.records: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.starts = [0] * PARTITIONS
        self.epochs = [0] * PARTITIONS
        self.is_silent = False

    def ask(self) -> None:
        if self.is_silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def first_since(self, partition: int, at_s: float) -> int:
        left = self.records[partition][self.starts[partition] :]
        return next((record.number for record in left if record.at_s >= at_s), OFFSET_END)


class Reader:
    """A consumer."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._positions: dict[int, int] = {}
        self._told_end: dict[int, int] = {}
        self._epochs = list(log.epochs)

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._log.ask()
        partitions = range(PARTITIONS) if topic == TOPIC else range(0)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        self._log.ask()
        return self._log.starts[place.partition], len(self._log.records[place.partition])

    def offsets_for_times(self, places: Iterable[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._log.ask()
        return [TopicPartition(TOPIC, place.partition, self._offset_at(place)) for place in places]

    def _offset_at(self, place: TopicPartition) -> int:
        if place.offset == -1:
            return len(self._log.records[place.partition])
        return self._log.first_since(place.partition, place.offset / 1000)

    def assign(self, places: Iterable[TopicPartition]) -> None:
        self._positions = {place.partition: place.offset for place in places}

    def position(self, places: Iterable[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, place.partition, self._positions[place.partition]) for place in places]

    def poll(self, timeout: float) -> Record | None:
        for partition in self._positions if not self._log.is_silent else ():
            if (record := self._next(partition)) is not None:
                return record
        return None

    def consume(self, num: int, timeout: float) -> list[Record]:
        """Few at a time, so that the feed is often somewhere in between."""
        record = self.poll(timeout)
        return [] if record is None else [record]

    def _next(self, partition: int) -> Record | None:
        position, end = self._positions[partition], len(self._log.records[partition])
        if position < self._log.starts[partition] or self._epochs[partition] != self._log.epochs[partition]:
            return Record(partition, position, None, 0, problem=KafkaError._AUTO_OFFSET_RESET)
        if position < end:
            self._positions[partition] += 1
            return self._log.records[partition][position]
        if self._told_end.get(partition) != end:
            self._told_end[partition] = end
            return Record(partition, end, None, 0, problem=KafkaError._PARTITION_EOF)
        return None

    def close(self) -> None: ...


class World:
    def __init__(self, folder: Path, capacity: int) -> None:
        self.now_s = 1_000_000.0
        self.log = Log()
        self._folder = folder
        self._capacity = capacity
        self._revisions = [0] * POSTS
        self._reader: Any = None
        """The consumer that reads now, if any."""
        self._start()

    def write(self, number: int, *, deleted: bool = False) -> None:
        post = number % POSTS
        self._revisions[post] += 1
        embedding = post_embedding(f"p{post}", self._revisions[post], deleted=deleted)
        self._append(post % PARTITIONS, encode_embedding(embedding), embedding.post_id, embedding.revision)

    def write_again(self, number: int) -> None:
        """As a stage that repeats its work may."""
        record = self._newest_before(number % POSTS, self.now_s + 1)
        if record is not None:
            self._append(record.place, record.body, record.post_id, record.revision)

    def _append(self, partition: int, body: bytes | None, post_id: str, revision: int) -> None:
        records = self.log.records[partition]
        records.append(Record(partition, len(records), body, self.now_s, post_id, revision))

    def delete(self, number: int) -> None:
        self.write(number, deleted=True)

    def lose_records(self, number: int) -> None:
        """The broker deletes all but the last records of a partition."""
        partition = number % PARTITIONS
        self.log.starts[partition] = max(self.log.starts[partition], len(self.log.records[partition]) - number)

    def lose_newest_records(self, number: int) -> None:
        """A broker without replicas comes back as it was some time ago. A reader notices by the leader's epoch, or when
        it asks for the ends, before new records have taken the offsets of the lost ones."""
        partition = number % PARTITIONS
        start, records = self.log.starts[partition], self.log.records[partition]
        if self._reader is not None and not self.log.is_silent:
            del records[max(start, len(records) - number) :]
            self.log.epochs[partition] += 1
            self.feed(1)

    def wait(self, number: int) -> None:
        self.now_s += number / 2

    def fall_silent(self, _: int) -> None:
        self.log.is_silent = True

    def answer_again(self, _: int) -> None:
        self.log.is_silent = False

    def feed(self, number: int) -> None:
        for _ in range(number):
            try:
                if self._reader is None:
                    reader: Any = Reader(self.log)
                    self._feed._follower._assign(reader)
                    self._reader = reader
                self._feed._follower._step(self._reader)
            except (KafkaException, RetrieverUnavailable):
                self._reader = None

    def catch_up(self, _: int) -> None:
        self.feed(100)

    def interrupt(self, _: int) -> None:
        self._reader = None

    def restart(self, number: int) -> None:
        """Cleanly, with a snapshot, or not."""
        if number % 2:
            self._feed.finish()
        self.end_writing()
        self._start()

    def end_writing(self) -> None:
        """A process that is gone writes no more."""
        if self._snapshots._writing is not None:
            wait([self._snapshots._writing[1]])

    def _start(self) -> None:
        options = HotSettings(window_s=WINDOW_S, capacity=self._capacity, device="cpu")
        self.hot = MatrixHotTier(DIMENSION, options, IdTable())
        self._snapshots = Snapshots(
            self._folder, self.hot, lambda: "id", every_s=1e9, erase_within_s=1e9, clock=lambda: self.now_s
        )
        self._feed = HotFeed(
            _no_consumer,
            GENERATION,
            self.hot,
            TrendingLists(),
            window_s=WINDOW_S,
            stale_after_s=STALE_AFTER_S,
            snapshots=self._snapshots,
            clock=lambda: self.now_s,
        )
        self._feed._watch._clock = lambda: self.now_s
        self._reader = None

    def check(self) -> None:
        if self._feed.problem is not None:
            return
        floor = self.hot.floor()
        for post in range(POSTS):
            (held,) = self.hot.posts([PostId(f"p{post}")])
            newest = self._newest_before(post, self.now_s - STALE_AFTER_S)
            if newest is None:
                continue
            if held is not None:
                assert held.revision >= newest.revision, f"p{post} is held in an older revision"
            else:
                assert newest.number < floor[Partition(newest.place)], f"p{post} is not held"

    def _newest_before(self, post: int, time_s: float) -> Record | None:
        """Of the records that were ever written, also of those that the broker has no longer."""
        of_post = [
            record
            for record in self.log.records[post % PARTITIONS]
            if record.post_id == f"p{post}" and record.at_s < time_s
        ]
        return max(of_post, key=lambda record: (record.revision, record.number), default=None)


def _no_consumer() -> Any:
    raise AssertionError("the test reads by itself")


OFTEN = [World.write, World.write_again, World.delete, World.feed, World.wait]
SELDOM = [
    *(World.catch_up, World.catch_up, World.lose_records, World.lose_newest_records),
    *(World.fall_silent, World.answer_again, World.answer_again, World.interrupt, World.restart),
]


@settings(max_examples=25)
@given(capacity=st.integers(2, POSTS), seed=st.integers(0, 2**32 - 1))
def test_what_the_floor_promises_is_held(capacity: int, seed: int) -> None:
    drawn = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(follower, "_RETRY_S", 0.0)
        patch.setattr(follower, "_ASK_EVERY_S", 0.0)
        world = World(Path(folder), capacity)
        for _ in range(200):
            drawn.choice(4 * OFTEN + SELDOM)(world, drawn.randrange(6))
            world.check()
        world.end_writing()
