"""Single records are found by their offsets, wherever they lie, and a batch never takes long to read."""

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple, cast

import pytest
from confluent_kafka import Message

from schemas.ids import Offset, Partition
from schemas.replays import ReplayRequest, encode_request
from streams.kafka.lookup import JUMP, RecordLookup
from streams.kafka.records import Place, offset_of
from streams.kafka.replays import find_records, take_batch
from streams.settings import KafkaSettings
from tests.kit.kafka.topics import produce, transaction

PLACE = Place("activity", Partition(0))


class StubRequest(NamedTuple):
    place: int
    body: bytes

    def topic(self) -> str:
        return "requests"

    def partition(self) -> int:
        return self.place

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return self.body


def requests(*offsets: int, partition: int = 0, end: int = 1_000_000) -> list[Message]:
    bodies = (encode_request(ReplayRequest(Offset(offset), Offset(end))) for offset in offsets)
    return [cast(Message, StubRequest(partition, body)) for body in bodies]


def num_taken(*asked: Message) -> int:
    return len(take_batch(asked, {"requests": "activity"}).requests)


@pytest.fixture
def lookup(kafka: KafkaSettings) -> Iterator[RecordLookup]:
    with closing(RecordLookup(kafka)) as lookup:
        yield lookup


@pytest.mark.broker
def test_records_are_found_by_their_offsets(kafka: KafkaSettings, lookup: RecordLookup) -> None:
    produce(kafka, "activity", 0, 3 * JUMP)
    transaction(kafka, "activity", 0, commit=False)
    produce(kafka, "activity", 0, 5)
    wanted = [0, 1, 7, JUMP + 7, JUMP + 8, 3 * JUMP - 1, 3 * JUMP + 2]
    for offsets in (wanted, wanted[::-1], [3 * JUMP], []):
        found = [offset_of(record) for record in lookup.records(PLACE, [Offset(offset) for offset in offsets])]
        assert found == [offset for offset in sorted(offsets) if offset != 3 * JUMP], "an aborted record is none"
    assert [offset_of(record) for record in lookup.stretch(PLACE, Offset(5), Offset(8))] == [5, 6, 7]


@pytest.mark.broker
def test_a_record_of_another_key_is_not_the_one(kafka: KafkaSettings, lookup: RecordLookup) -> None:
    """As in a topic that was made anew."""
    produce(kafka, "activity", 0, 3)
    found = find_records(lookup, PLACE, {Offset(0): b"k", Offset(1): b"other", Offset(2): None})
    assert [offset_of(record) for record in found] == [0]


def test_a_batch_has_as_many_requests_as_can_be_answered_quickly() -> None:
    assert num_taken(*requests(*range(5000))) == 5000
    assert num_taken(*requests(*range(0, 100_000, 1000))) == 19, "20,000 records are read"
    assert num_taken(*requests(*range(0, 10_000_000, 100_000))) == 10, "or ten places looked up"
    assert num_taken(*requests(9_000_000, 0, 9_000_000)) == 3


def test_a_batch_has_requests_that_saw_the_same_end_of_a_partition() -> None:
    first, second = requests(1, 2, end=10), requests(3, 4, end=20)
    assert num_taken(*first, *second) == 2
    elsewhere = requests(5, end=30, partition=1)
    batch = take_batch([*elsewhere, *first, *second], {"requests": "activity"})
    assert len(batch.requests) == 3
    assert batch.keys == {PLACE: {1: b"k", 2: b"k"}, PLACE._replace(partition=Partition(1)): {5: b"k"}}
    assert batch.ends == {PLACE: 10, PLACE._replace(partition=Partition(1)): 30}


def test_a_request_that_cannot_be_read_is_done_with_the_others() -> None:
    bad = cast(Message, StubRequest(0, b"{"))
    batch = take_batch([bad, *requests(1), bad], {"requests": "activity"})
    assert (len(batch.requests), [message for message, _ in batch.dead]) == (3, [bad, bad])
