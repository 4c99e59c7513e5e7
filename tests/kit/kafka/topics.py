"""What the tests of stages share: fresh topics, records in, records out, lag, and processes that end."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, Message, Producer, TopicPartition

from schemas.embeddings import MemberEmbedding, PostEmbedding, pack_vector
from schemas.ids import Generation, MemberId, Micros, Partition, PostId, Revision
from streams.errors import KafkaUnavailable
from streams.kafka.clients import admin, client_config, kafka_errors, producer_config
from streams.kafka.heartbeat import Heartbeat
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place, offset_of, place_of
from streams.settings import KafkaSettings
from tests.kit.waiting import until

DIMENSION = 8
Headers = list[tuple[str, bytes]]


def new_generation() -> Generation:
    return Generation(f"test-{uuid.uuid4().hex[:8]}")


def unit_vector(seed: int) -> bytes:
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return pack_vector(vector / np.linalg.norm(vector))


def post_embedding(post_id: str, revision: int = 1, *, deleted: bool = False) -> PostEmbedding:
    vector = b"" if deleted else unit_vector(revision)
    return PostEmbedding(PostId(post_id), Revision(revision), deleted, MemberId("m"), "en", Micros(1), vector)


def member_embedding(member_id: str, revision: int = 1) -> MemberEmbedding:
    return MemberEmbedding(MemberId(member_id), Revision(revision), False, [], [], None, unit_vector(revision))


class Sender:
    """Sends, in transactions if asked to, and waits for the broker."""

    def __init__(self, kafka: KafkaSettings, transactional_id: str | None = None, **over: str) -> None:
        own = {"transactional.id": transactional_id} if transactional_id else {}
        self._producer = Producer(producer_config(kafka, **own, **over))
        self._transactional = transactional_id is not None
        if self._transactional:
            self._producer.init_transactions(30)

    def send(self, topic: str, records: Iterable[tuple[str, bytes | None]], headers: Headers | None = None) -> None:
        if self._transactional:
            self._producer.begin_transaction()
        for key, value in records:
            self._producer.produce(topic, value, key.encode(), headers=headers or [])
            self._producer.poll(0)
        if self._transactional:
            self._producer.commit_transaction(30)
        assert self._producer.flush(30) == 0


def read_all(kafka: KafkaSettings, topic: str) -> list[Message]:
    """Every committed record that is in the topic now, partition by partition. A transaction that is committed may get
    its marker here a moment later than the group gets its offsets: so an end before the last record is not the end."""
    over = {"group.id": "reader", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer(client_config(kafka, **over, **{"enable.partition.eof": True}))
    try:
        reader = OffsetReader(kafka)
        ends = reader.ends(reader.places([topic]))
        consumer.assign([TopicPartition(*place, 0) for place in ends])
        found: list[Message] = []
        while ends:
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    found.append(message)
                elif offset_of(message) >= ends.get(place_of(message), 0):
                    ends.pop(place_of(message), None)
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def lag(kafka: KafkaSettings, group: str, topics: Sequence[str]) -> int:
    """Records (and control records) between what the group has committed and the ends of these topics."""
    consumer = Consumer(client_config(kafka, **{"group.id": group}))
    try:
        places = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ]
        total = 0
        for place in consumer.committed(places, timeout=20):
            low, high = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=20)
            total += high - (place.offset if place.offset >= 0 else low)
        return total
    finally:
        consumer.close()


def until_no_lag(kafka: KafkaSettings, group: str, topics: Sequence[str], timeout_s: float = 60.0) -> None:
    def no_lag() -> bool:
        try:
            with kafka_errors():
                return lag(kafka, group, topics) == 0
        except KafkaUnavailable:
            return False  # a broker's first group makes it wait for its offsets topic

    until(no_lag, f"the lag of {group} to reach zero", timeout_s, every_s=0.1)


class RecordedHeartbeat(Heartbeat):
    """Remembers what a loop has said."""

    def __init__(self) -> None:
        self.owned: frozenset[Place] = frozenset()
        self.turns = 0
        self.beats = threading.Semaphore(0)

    def owns(self, places: Collection[Place]) -> None:
        self.owned = frozenset(places)

    def turn(self) -> None:
        self.turns += 1

    def beat(self) -> None:
        self.beats.release()

    def until_turned(self) -> None:
        turns = self.turns
        until(lambda: self.turns > turns + 1, "the loop to come round with nothing to do")


def all_places(kafka: KafkaSettings, *topics: str) -> set[Place]:
    return {Place(topic, Partition(number)) for topic in topics for number in range(kafka.partitions)}


def until_workers_share(kafka: KafkaSettings, group: str, number: int) -> None:
    """Until so many members of the group own its partitions."""

    def settled() -> bool:
        # A new client each time: one that has asked too early may wait for that coordinator for good.
        client = admin(kafka)
        try:
            group_now = client.describe_consumer_groups([group], request_timeout=5)[group].result(10)
        except (KafkaException, TimeoutError):
            return False  # a broker's first group makes it wait for its offsets topic
        owners = [member for member in group_now.members if member.assignment.topic_partitions]
        return group_now.state == ConsumerGroupState.STABLE and len(owners) == number

    until(settled, f"{number} workers to share the partitions", 60, every_s=0.2)


@contextmanager
def in_thread(run: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Runs a stage beside the test; what it raises is raised here when it ends."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def target() -> None:
        try:
            run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive(), "the stage did not end within 30 s"
        if failures:
            raise failures[0]


@contextmanager
def child(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of the tests; killed at the end if it still runs."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()
