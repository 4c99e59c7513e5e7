"""Records that are not in the partition of their key."""

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from schemas import topics
from schemas.errors import BadRecord
from streams.contexts import wrong_partition
from streams.contexts.metrics import ContextMetrics
from streams.contexts.wrong_partition import RecordsInWrongPartition
from streams.kafka.clients import producer_config
from streams.kafka.partitions import partition_of
from streams.kafka.records import Output
from streams.settings import KafkaSettings

NUM_PARTITIONS = 4
RIGHT = partition_of(b"p1", NUM_PARTITIONS)
WRONG = (RIGHT + 1) % NUM_PARTITIONS


def record(topic: str = topics.POSTS, partition: int = WRONG, **over: Any) -> Message:
    defaults = {
        "key": b"p1",
        "value": b"v",
        "headers": [("a", b"1"), ("b", None)],
        "timestamp": (TIMESTAMP_CREATE_TIME, 5),
    }
    return Message(topic=topic, partition=partition, offset=7, **defaults | over)


@pytest.mark.parametrize("topic", [topics.POSTS, topics.MEMBERS, topics.REPUBLISH])
def test_a_record_is_moved_unchanged_and_only_once(topic: str) -> None:
    checked = RecordsInWrongPartition(NUM_PARTITIONS)
    sent = checked.moved(record(topic))
    assert sent == Output(topic, b"p1", b"v", [("a", b"1"), ("b", None)], RIGHT, 5)  # type: ignore[list-item, arg-type]
    assert sent.partition is not None
    assert checked.moved(record(topic, sent.partition)) is None
    assert checked.num_records == {topic: 1}


def test_each_of_them_is_in_the_metrics() -> None:
    registry = CollectorRegistry()
    checked = RecordsInWrongPartition(NUM_PARTITIONS, ContextMetrics(registry).misplaced)
    for _ in range(2):
        checked.moved(record())
    labels = {"topic": topics.POSTS}
    assert registry.get_sample_value("nearline_contexts_misplaced_records_total", labels) == 2


def test_an_activity_is_counted_and_stays() -> None:
    checked = RecordsInWrongPartition(NUM_PARTITIONS)
    assert checked.moved(record(topics.ACTIVITY)) is None
    assert checked.num_records == {topics.ACTIVITY: 1}


@pytest.mark.parametrize(
    "in_place",
    [
        record(key=None),
        record(topics.REPUBLISH, key=None, headers=[(topics.FLUSH_HEADER, b"1")]),
        record(topics.ACTIVITY_BY_POST),
        record(partition=RIGHT),
    ],
    ids=["without a key", "a flush", "a hop", "in its place"],
)
def test_a_record_that_may_stay_is_not_counted(in_place: Message) -> None:
    checked = RecordsInWrongPartition(NUM_PARTITIONS)
    assert (checked.moved(in_place), checked.num_records) == (None, {})


def test_a_moved_record_without_a_timestamp_gets_the_time_of_its_sending() -> None:
    sent = RecordsInWrongPartition(NUM_PARTITIONS).moved(record(timestamp=(TIMESTAMP_NOT_AVAILABLE, -1)))
    assert sent is not None
    assert sent.timestamp_ms is None


def test_a_record_that_came_in_compressed_and_is_too_large_to_be_sent_is_a_bad_one() -> None:
    with pytest.raises(BadRecord, match="use partitioner=murmur2_random"):
        RecordsInWrongPartition(NUM_PARTITIONS).moved(record(value=bytes(8_000_000 * 2)))


def test_the_log_says_it_once_a_minute_for_each_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(wrong_partition.time, "monotonic", lambda: now_s)
    checked = RecordsInWrongPartition(NUM_PARTITIONS)

    def logged(*records: Message) -> list[tuple[str, int, int]]:
        for record_to_check in records:
            checked.moved(record_to_check)
        with capture_logs() as lines:
            checked.log_new()
        assert all("set partitioner=murmur2_random" in line["event"] for line in lines)
        return [(line["topic"], line["num_records"], line["so_far"]) for line in lines]

    assert logged() == []
    assert logged(record(), record()) == [(topics.POSTS, 2, 2)]
    assert logged(record(), record(topics.MEMBERS)) == [(topics.MEMBERS, 1, 1)]
    now_s += 60
    assert logged() == [(topics.POSTS, 1, 3)]
    now_s += 60
    assert logged() == []


def test_no_option_gives_our_own_producers_another_partitioner() -> None:
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "b:1", "options": {"partitioner": "consistent_random"}})
    assert producer_config(kafka)["partitioner"] == "murmur2_random"
