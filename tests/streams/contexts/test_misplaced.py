"""Records in partitions that are not their keys'."""

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from structlog.testing import capture_logs

from schemas import topics
from schemas.errors import BadRecord
from streams.contexts import misplaced
from streams.contexts.misplaced import Misplaced
from streams.kafka.clients import producer_config
from streams.kafka.partitions import partition_of
from streams.kafka.records import Output
from streams.settings import KafkaSettings

NUM_PARTITIONS = 4
RIGHT = partition_of(b"p1", NUM_PARTITIONS)
WRONG = (RIGHT + 1) % NUM_PARTITIONS


def record(topic: str = topics.POSTS, partition: int = WRONG, **over: Any) -> Message:
    own = {"key": b"p1", "value": b"v", "headers": [("a", b"1"), ("b", None)], "timestamp": (TIMESTAMP_CREATE_TIME, 5)}
    return Message(topic=topic, partition=partition, offset=7, **own | over)


@pytest.mark.parametrize("topic", [topics.POSTS, topics.MEMBERS, topics.REPUBLISH])
def test_a_record_goes_on_as_it_is_and_never_again(topic: str) -> None:
    found = Misplaced(NUM_PARTITIONS)
    sent = found.sent_on(record(topic))
    assert sent == Output(topic, b"p1", b"v", [("a", b"1"), ("b", None)], RIGHT, 5)  # type: ignore[list-item, arg-type]
    assert sent.partition is not None
    assert found.sent_on(record(topic, sent.partition)) is None
    assert found.num_records == {topic: 1}


def test_an_activity_is_counted_and_stays() -> None:
    found = Misplaced(NUM_PARTITIONS)
    assert found.sent_on(record(topics.ACTIVITY)) is None
    assert found.num_records == {topics.ACTIVITY: 1}


@pytest.mark.parametrize(
    "own",
    [
        record(key=None),
        record(topics.REPUBLISH, key=None, headers=[(topics.FLUSH_HEADER, b"1")]),
        record(topics.ACTIVITY_BY_POST),
        record(partition=RIGHT),
    ],
    ids=["without a key", "a flush", "a hop", "in its place"],
)
def test_what_may_stay_where_it_is_is_not_counted(own: Message) -> None:
    found = Misplaced(NUM_PARTITIONS)
    assert (found.sent_on(own), found.num_records) == (None, {})


def test_a_record_without_a_timestamp_gets_that_of_its_sending() -> None:
    sent = Misplaced(NUM_PARTITIONS).sent_on(record(timestamp=(TIMESTAMP_NOT_AVAILABLE, -1)))
    assert sent is not None
    assert sent.timestamp_ms is None


def test_a_record_that_came_in_compressed_and_is_too_large_to_be_sent_is_a_bad_one() -> None:
    with pytest.raises(BadRecord, match="use partitioner=murmur2_random"):
        Misplaced(NUM_PARTITIONS).sent_on(record(value=bytes(8_000_000 * 2)))


def test_the_log_says_it_once_a_minute_for_each_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(misplaced.time, "monotonic", lambda: now_s)
    found = Misplaced(NUM_PARTITIONS)

    def said(*records: Message) -> list[tuple[str, int, int]]:
        for misplaced_record in records:
            found.sent_on(misplaced_record)
        with capture_logs() as lines:
            found.say()
        assert all("set partitioner=murmur2_random" in line["event"] for line in lines)
        return [(line["topic"], line["num_records"], line["so_far"]) for line in lines]

    assert said() == []
    assert said(record(), record()) == [(topics.POSTS, 2, 2)]
    assert said(record(), record(topics.MEMBERS)) == [(topics.MEMBERS, 1, 1)]
    now_s += 60
    assert said() == [(topics.POSTS, 1, 3)]
    now_s += 60
    assert said() == []


def test_no_option_gives_our_own_producers_another_partitioner() -> None:
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "b:1", "options": {"partitioner": "consistent_random"}})
    assert producer_config(kafka)["partitioner"] == "murmur2_random"
