"""Reading a stretch of a partition, and the newest record of a key."""

from contextlib import closing

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.ids import Offset, Partition
from streams.kafka import reading as scan_module
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.partitions import partition_of
from streams.kafka.reading import newest_value, newest_values, scan, scanner
from streams.kafka.records import Place
from streams.settings import KafkaSettings
from tests.kit.kafka.topics import transaction

KEYS = [b"", b"a", b"ab", b"abc", b"abcd", "ü-größer".encode(), b"x" * 256]


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_partition_is_that_of_the_java_client(key: bytes, hashed: int) -> None:
    """The hashes are those of Kafka's own test, UtilsTest.testMurmur2."""
    assert partition_of(key, 1000) == (hashed & 0x7FFFFFFF) % 1000


@pytest.mark.broker
def test_the_partition_is_that_of_our_producers(kafka: KafkaSettings) -> None:
    producer = Producer(producer_config(kafka))
    partitions: dict[bytes, int] = {}
    for key in KEYS[1:]:
        producer.produce(topics.POSTS, b"", key, on_delivery=lambda _, m: partitions.update({m.key(): m.partition()}))
    producer.flush(20)
    assert partitions == {key: partition_of(key, 2) for key in KEYS[1:]}


@pytest.mark.broker
def test_the_newest_record_of_a_key_is_found(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_FIRST_STRETCH", 3)
    producer = Producer(producer_config(kafka))
    for key, value in [(b"old", b"1"), (b"twice", b"1"), *((b"k%d" % i, b"x") for i in range(50)), (b"twice", b"2")]:
        producer.produce(topics.POST_CONTEXTS, value, key)
    producer.flush(20)
    assert newest_value(kafka, topics.POST_CONTEXTS, b"twice") == b"2"
    assert newest_value(kafka, topics.POST_CONTEXTS, b"old") == b"1"
    assert newest_value(kafka, topics.POST_CONTEXTS, b"never") is None
    assert newest_value(kafka, "no-such-topic", b"old") is None
    keys = [b"old", b"twice", b"k7", b"never"]
    newest = newest_values(kafka, topics.POST_CONTEXTS, keys)
    assert newest == {b"old": b"1", b"twice": b"2", b"k7": b"x"}
    assert newest_values(kafka, topics.POST_CONTEXTS, keys, max_offsets=20) == {b"twice": b"2"}, "the others are old"
    assert newest_values(kafka, topics.POST_CONTEXTS, []) == {}
    producer.produce(topics.POST_CONTEXTS, None, b"twice")
    producer.flush(20)
    assert newest_values(kafka, topics.POST_CONTEXTS, keys[:2]) == {b"old": b"1"}


@pytest.mark.broker
def test_records_that_are_not_committed_are_not_read(kafka: KafkaSettings) -> None:
    place = Place(topics.POST_CONTEXTS, Partition(0))
    transaction(kafka, *place, commit=False)
    open_one = transaction(kafka, *place, commit=None)
    try:
        with closing(OffsetReader(kafka)) as reader, closing(scanner(kafka)) as consumer:
            assert list(scan(consumer, place, Offset(0), reader.ends([place])[place])) == []
    finally:
        open_one.abort_transaction(20)
