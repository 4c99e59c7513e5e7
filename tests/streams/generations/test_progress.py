"""How far a building is, by the offsets that its encode group has committed."""

from contextlib import closing
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, TopicPartition
from msgspec.structs import replace

from schemas import topics
from schemas.ids import Generation, Offset, Partition
from streams.generations.progress import Progress, progress, read_progress
from streams.kafka.clients import consumer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT, generation_record
from tests.kit.kafka.topics import produce

P0, P1 = Place("t", Partition(0)), Place("t", Partition(1))
RECORD = replace(
    generation_record("b-2", "building", "green"), goal={"t": {Partition(0): Offset(100), Partition(1): Offset(40)}}
)
LATER = AT + timedelta(seconds=30)


def test_it_counts_what_is_left_of_the_goal_and_not_what_is_deleted_or_beyond() -> None:
    starts = {P0: Offset(20), P1: Offset(0)}
    assert progress(RECORD, starts, {P0: None, P1: None}, LATER) == Progress(0, 120, None)
    half = progress(RECORD, starts, {P0: Offset(40), P1: Offset(1_000)}, LATER)
    assert (half, half.share) == (Progress(60, 120, 30.0), 0.5)
    assert progress(RECORD, starts, {P0: Offset(7), P1: Offset(40)}, LATER) == Progress(40, 120, 60.0)
    assert progress(RECORD, starts, {P0: Offset(100), P1: Offset(40)}, LATER) == Progress(120, 120, 0.0)
    # Everything up to the goal was compacted and deleted.
    assert progress(RECORD, {P0: Offset(200), P1: Offset(40)}, {P0: None, P1: None}, LATER) == Progress(0, 0, 0.0)


def test_a_goal_without_records_is_reached() -> None:
    empty = progress(replace(RECORD, goal={}), {}, {}, LATER)
    assert (empty, empty.share) == (Progress(0, 0, 0.0), 1.0)


@pytest.mark.broker
def test_it_asks_the_broker_for_the_group_of_that_generation(kafka: KafkaSettings) -> None:
    goal = {topics.POST_CONTEXTS: {Partition(0): Offset(4), Partition(1): Offset(0)}}
    record = replace(RECORD, id=Generation("b-2"), goal=goal)
    produce(kafka, topics.POST_CONTEXTS, 0, 5)
    consumer = Consumer(consumer_config(kafka, topics.encode_group(record.id)))
    consumer.commit(offsets=[TopicPartition(topics.POST_CONTEXTS, 0, 1)], asynchronous=False)
    consumer.close()
    with closing(OffsetReader(kafka, 30)) as reader:
        assert read_progress(reader, record, LATER) == Progress(1, 4, 90.0)
        assert read_progress(reader, replace(record, state="ready"), LATER) is None
