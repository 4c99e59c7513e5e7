"""How many records wait, where control records of transactions take offsets too; on the real broker."""

from contextlib import closing

import pytest

from schemas import topics
from schemas.ids import Offset, Partition
from schemas.stages import contexts_reads
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.operate.lag import PartitionLag, StageLag
from streams.operate.record_shares import RecordShares
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import make_topics, produce, transaction
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

PLACE = Place(topics.POST_CONTEXTS, Partition(0))
TRANSACTIONS = 6


def test_control_records_are_not_counted(clean_topics: RunningBroker) -> None:
    kafka, now_s = make_topics(clean_topics), [0.0]
    for _ in range(TRANSACTIONS):
        transaction(kafka, PLACE.topic, PLACE.partition, commit=True)
    with closing(OffsetReader(kafka)) as reader:
        until(lambda: reader.stable_ends([PLACE]) == {PLACE: 2 * TRANSACTIONS}, "the end of the last transaction")
        for stretch in (500, 4):  # all of it is read, or the last third
            shares = RecordShares(kafka, reader, lambda: now_s[0], stretch)

            def records(done: int, end: int = 2 * TRANSACTIONS, shares: RecordShares = shares) -> int:
                lag = PartitionLag(Offset(done), Offset(end), end - done, None)
                (stage,) = shares.in_records([StageLag(contexts_reads(), {PLACE: lag}, {})])
                return stage.partitions[PLACE].records

            until(lambda records=records: records(0) == TRANSACTIONS, "the records to be counted")  # type: ignore[misc]
            assert records(4) == TRANSACTIONS - 2
            assert records(2 * TRANSACTIONS - 1) == 1, "something waits"
            assert records(2 * TRANSACTIONS) == 0

        produce(kafka, PLACE.topic, PLACE.partition, 2 * TRANSACTIONS)
        end = 4 * TRANSACTIONS
        assert records(0, end) == end / 2, "as it was found before"
        now_s[0] += 11.0
        until(lambda: records(0, end) == end, "the newest records to be counted again")


def test_a_partition_that_there_was_no_time_for_is_like_the_others_of_its_topic(clean_topics: RunningBroker) -> None:
    kafka, other = make_topics(clean_topics), Place(PLACE.topic, Partition(1))
    for place in (PLACE, other):
        for _ in range(TRANSACTIONS):
            transaction(kafka, place.topic, place.partition, commit=True)
    lag = PartitionLag(Offset(0), Offset(2 * TRANSACTIONS), 2 * TRANSACTIONS, None)
    with closing(OffsetReader(kafka)) as reader, closing(RecordShares(kafka, reader, lambda: 0.0)) as shares:

        def records(read_s: float, *places: Place) -> list[int]:
            (stage,) = shares.in_records([StageLag(contexts_reads(), dict.fromkeys(places, lag), {})], read_s)
            return [lag.records for lag in stage.partitions.values()]

        assert records(0.0, PLACE, other) == [2 * TRANSACTIONS] * 2, "nothing of the topic was read"
        until(lambda: records(30.0, PLACE) == [TRANSACTIONS], "the records to be counted")
        assert records(0.0, PLACE, other) == [TRANSACTIONS] * 2


def test_a_batch_that_was_aborted_says_nothing_of_the_records_before_it(clean_topics: RunningBroker) -> None:
    kafka = make_topics(clean_topics)
    produce(kafka, PLACE.topic, PLACE.partition, 6)
    for _ in range(4):
        transaction(kafka, PLACE.topic, PLACE.partition, commit=False)
    with closing(OffsetReader(kafka)) as reader:
        until(lambda: reader.stable_ends([PLACE]) == {PLACE: 14}, "the end of the last transaction")
        shares = RecordShares(kafka, reader, stretch=4)

        def records(done: int) -> int:
            lag = PartitionLag(Offset(done), Offset(14), 14 - done, None)
            (stage,) = shares.in_records([StageLag(contexts_reads(), {PLACE: lag}, {})])
            return stage.partitions[PLACE].records

        assert records(0) == 14, "at most"


def test_what_was_read_already_is_no_sample_of_what_waits(clean_topics: RunningBroker) -> None:
    kafka = make_topics(clean_topics)
    for _ in range(4):
        transaction(kafka, PLACE.topic, PLACE.partition, commit=False)
    produce(kafka, PLACE.topic, PLACE.partition, 6)
    with closing(OffsetReader(kafka)) as reader:
        until(lambda: reader.stable_ends([PLACE]) == {PLACE: 14}, "the last record")
        shares = RecordShares(kafka, reader)

        def records() -> int:
            lag = PartitionLag(Offset(8), Offset(14), 1, None)
            (stage,) = shares.in_records([StageLag(contexts_reads(), {PLACE: lag}, {})])
            return stage.partitions[PLACE].records

        until(lambda: records() == 6, "the records to be counted")
