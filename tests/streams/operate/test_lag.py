"""Lag counts the records that a stage still has to process, without control records and deleted records."""

import time
from contextlib import closing
from datetime import timedelta

import pytest

from schemas import topics
from schemas.ids import Offset, Partition
from schemas.stages import all_stages, post_vectors_reads
from streams.encode.post_vectors.progress import ReignProgress
from streams.encode.post_vectors.reign import Reign
from streams.errors import KafkaRefused, KafkaUnavailable
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.operate.lag import Lag, read_lags
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.data.generations import generation_record
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit, commit_all
from tests.kit.kafka.topics import produce, transaction
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

CONTEXTS = topics.POST_CONTEXTS
ENCODE = topics.encode_group(GENERATION)


def lag_of(reader: OffsetReader, stage: str, topic: str) -> Lag:
    return next(
        lag for lag in read_lags(reader, all_stages(GENERATION), 10.0) if (lag.stage, lag.topic) == (stage, topic)
    )


def test_without_records_no_stage_has_lag(reader: OffsetReader) -> None:
    lags = read_lags(reader, all_stages(GENERATION), 1.0, dict)
    assert {lag.records for lag in lags} == {0}
    assert {lag.oldest_ms for lag in lags} == {None}
    assert [(lag.stage, lag.topic) for lag in lags][:7] == [
        *(("contexts", name) for name in (*topics.INPUTS, *topics.HOPS, topics.REPUBLISH)),
        ("trending", topics.ACTIVITY),
    ]
    assert lags[-1].stage == "hot-feed"


def test_a_group_that_committed_nothing_has_all_of_it_to_do(kafka: KafkaSettings, reader: OffsetReader) -> None:
    now_ms = int(time.time() * 1000)
    produce(kafka, topics.POSTS, 0, 3, now_ms - 60_000)
    produce(kafka, topics.POSTS, 1, 2, now_ms - 90_000)
    lag = lag_of(reader, "contexts", topics.POSTS)
    assert (lag.records, lag.oldest_ms) == (5, now_ms - 90_000)


def test_the_lag_of_post_vectors_is_what_this_reign_has_still_to_write(
    clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader
) -> None:
    """Its group commits under `post-vectors`, with the tag of the reign, how far it has read the embeddings."""
    serving = generation_record(GENERATION)
    ensure_topics(kafka, topics.POST_VECTOR_SPECS)
    source = topics.post_embeddings(GENERATION)
    produce(kafka, source, 0, 5)
    produce(kafka, source, 1, 2)

    def records() -> int | None:
        (lag,) = read_lags(reader, [post_vectors_reads(serving)], 10.0)
        assert (lag.stage, lag.group, lag.topic) == ("post-vectors", topics.POST_VECTORS_GROUP, source)
        return lag.records

    def commit_in(reign: Reign, offset: int) -> None:
        place = Place(source, Partition(0))
        committed = ReignProgress(kafka, reign, lambda: True).to_commit(place, Offset(offset), 0)
        at = {(committed.topic, committed.partition): committed.offset}
        commit(clean_topics, topics.POST_VECTORS_GROUP, at, committed.metadata)

    assert records() == 7, "nothing is written yet"
    reign = Reign(serving.id, serving.since, 50, is_text=True)
    commit_in(reign._replace(since=serving.since - timedelta(days=1)), 4)
    assert records() == 7, "in a new reign all posts are written again"
    commit_in(reign, 4)
    assert records() == 3


def test_a_right_that_is_missing_for_post_vectors_hides_no_other_lag(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise KafkaRefused("Group authorization failed")

    monkeypatch.setattr(reader, "progress_under", refused)
    produce(kafka, topics.POSTS, 0, 3)
    reads = [*all_stages(GENERATION), post_vectors_reads(generation_record(GENERATION))]
    lags = {(lag.stage, lag.topic): lag.records for lag in read_lags(reader, reads, 10.0)}
    assert lags["post-vectors", topics.post_embeddings(GENERATION)] is None
    assert lags["contexts", topics.POSTS] == 3


def test_the_oldest_record_is_the_first_that_is_not_processed(
    clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader
) -> None:
    now_ms = int(time.time() * 1000)
    produce(kafka, topics.ACTIVITY, 0, 1, now_ms - 60_000)
    produce(kafka, topics.ACTIVITY, 0, 1, now_ms - 30_000)
    commit(clean_topics, topics.CONTEXTS_GROUP, {(topics.ACTIVITY, 0): 1})
    assert lag_of(reader, "contexts", topics.ACTIVITY)[3:5] == (1, now_ms - 30_000)
    assert lag_of(reader, "trending", topics.ACTIVITY)[3:5] == (2, now_ms - 60_000)


@pytest.mark.parametrize("committed", [True, False])
def test_control_records_and_aborted_records_are_no_lag(
    clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader, committed: bool
) -> None:
    transaction(kafka, CONTEXTS, 0, commit=committed)
    if committed:
        commit(clean_topics, ENCODE, {(CONTEXTS, 0): 1})
    place = (CONTEXTS, Partition(0))
    until(lambda: reader.ends([place]) == {place: 2}, "the end of the transaction to be in the partition")
    assert lag_of(reader, "encode", CONTEXTS)[3:5] == (0, None)


def test_an_open_transaction_is_lag_of_unknown_age(kafka: KafkaSettings, reader: OffsetReader) -> None:
    producer = transaction(kafka, CONTEXTS, 1, commit=None)
    try:
        assert lag_of(reader, "encode", CONTEXTS)[3:5] == (1, None)
    finally:
        producer.abort_transaction(20)


def test_the_hot_feed_is_asked_how_far_it_is(kafka: KafkaSettings, reader: OffsetReader) -> None:
    topic = topics.post_embeddings(GENERATION)
    produce(kafka, topic, 0, 4)
    reads = all_stages(GENERATION)
    assert read_lags(reader, reads, 1.0, lambda: {Place(topic, Partition(0)): Offset(3)})[-1].records == 1
    assert read_lags(reader, reads, 1.0, lambda: {Place(topic, Partition(0)): Offset(4)})[-1].records == 0
    assert read_lags(reader, reads, 1.0, lambda: None)[-1].records is None


def test_all_done_is_no_lag(clean_topics: RunningBroker, kafka: KafkaSettings, reader: OffsetReader) -> None:
    produce(kafka, topics.POSTS, 0, 2)
    commit_all(clean_topics, kafka, topics.CONTEXTS_GROUP, topics.POSTS)
    assert lag_of(reader, "contexts", topics.POSTS)[3:5] == (0, None)


def test_a_missing_topic_is_unknown(clean_topics: RunningBroker) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    with closing(OffsetReader(kafka)) as reader:
        assert {lag.records for lag in read_lags(reader, all_stages(None), 1.0)} == {None}


def test_no_broker_is_an_outage_and_is_reported_in_time() -> None:
    started = time.monotonic()
    with (
        closing(OffsetReader(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 0.5)) as reader,
        pytest.raises(KafkaUnavailable),
    ):
        read_lags(reader, all_stages(GENERATION), 1.0)
    assert time.monotonic() - started < 20, "librdkafka's own time is a minute"
