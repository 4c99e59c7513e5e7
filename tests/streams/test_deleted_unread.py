"""Records that retention deletes before a stage has read them are counted, logged and remembered."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from contexts.settings import ContextRules
from schemas import topics
from schemas.ids import Offset, Partition
from schemas.stages import all_stages
from streams.contexts.counted_offsets import changelog_of, offset_cells
from streams.contexts.stage import ContextStage
from streams.encode.metrics import EncodeMetrics
from streams.encode.stage import EncodeStage
from streams.errors import KafkaUnavailable
from streams.index.loop import IndexLoop
from streams.kafka.clients import producer_config
from streams.kafka.deleted_unread import Committed, parse_committed, sentence, to_commit
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.processor import Processor
from streams.kafka.records import Place
from streams.kafka.transactional_loop import TransactionalLoop
from streams.operate.acknowledge import Acknowledged, acknowledge_deleted
from streams.operate.lag import Lag, read_lags
from streams.settings import ContextsSettings, EncodeSettings, IndexSettings, KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.encoders import HashEncoder
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit
from tests.kit.kafka.topics import delete_before, produce, read_topic, transaction
from tests.kit.running import child, in_thread
from tests.kit.waiting import until

Run = Callable[[Event], None]


class Stage(NamedTuple):
    """A stage, and one of the partitions that it reads. All records that are sent there become dead letters."""

    name: str
    group: str
    place: Place
    start: Callable[[KafkaSettings, Path], Run]


def contexts(kafka: KafkaSettings, folder: Path) -> Run:
    return ContextStage(kafka, ContextsSettings(interval_s=0), ContextRules(), folder, "0").run


def encode(kafka: KafkaSettings, _: Path) -> Run:
    metrics = EncodeMetrics(CollectorRegistry())
    return EncodeStage(kafka, EncodeSettings(interval_s=0), HashEncoder(), GENERATION, "0", metrics=metrics).run


def index(kafka: KafkaSettings, folder: Path) -> Run:
    journal = folder / "journal"
    # These records become dead letters. An empty tier behind a group that has committed would be read into again.
    journal.write_text("p1 1 False\n")
    tier = cast(Any, JournalTier(journal))
    return IndexLoop(kafka, IndexSettings(linger_s=0.01), tier, GENERATION, 3600).run


def first_of(topic: str) -> Place:
    return Place(topic, Partition(0))


STAGES = [
    Stage("contexts", topics.CONTEXTS_GROUP, first_of(topics.ACTIVITY_BY_POST), contexts),
    Stage("encode", topics.encode_group(GENERATION), first_of(topics.POST_CONTEXTS), encode),
    Stage("index", topics.index_group(GENERATION), first_of(topics.post_embeddings(GENERATION)), index),
]


class GroupPartition:
    """One partition of a group, as the broker sees it."""

    def __init__(self, broker: RunningBroker, kafka: KafkaSettings, stage: str, group: str, place: Place) -> None:
        self._broker = broker
        self._kafka = kafka
        self._stage = stage
        self._group = group
        self._place = place

    def send(self, number: int) -> None:
        produce(self._kafka, *self._place, number)

    def delete_before(self, offset: int) -> None:
        delete_before(self._broker, *self._place, offset)

    def until_committed(self, offset: int, deleted: int) -> None:
        with closing(OffsetReader(self._kafka)) as reader:
            expected = {self._place: Committed(Offset(offset), deleted)}
            until(
                lambda: reader.progress(self._group, [self._place]) == expected, f"{self._stage} to commit {expected}"
            )

    def lag(self) -> Lag:
        with closing(OffsetReader(self._kafka)) as reader:
            lags = read_lags(reader, all_stages(GENERATION), 5.0)
        return next(lag for lag in lags if (lag.stage, lag.topic) == (self._stage, self._place.topic))


@pytest.mark.broker
@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_records_deleted_unread_are_counted_once_and_the_rest_is_read(
    clean_topics: RunningBroker, kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    seen = GroupPartition(clean_topics, kafka, stage.name, stage.group, stage.place)
    seen.send(2)
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(2, 0)
    seen.send(5)
    seen.delete_before(5)
    assert seen.lag()[3:4] + seen.lag()[5:] == (2, {0: 3}), "seen also while the stage is down"
    with monkeypatch.context() as patched:
        # Retention may also delete records after the stage has looked. Then the client asks for an offset that is gone.
        patched.setattr(OffsetReader, "starts", nothing_deleted)
        with pytest.raises(KafkaUnavailable, match="AUTO_OFFSET_RESET"):
            stage.start(kafka, tmp_path)(Event())
    with capture_logs() as logs, in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(7, 3)
    # A set: the loops of a stage share its partitions anew when one more has joined, and each new owner says it.
    logged = {
        (entry["topic"], entry["partition"], entry["records_at_most"])
        for entry in logs
        if entry["event"] == "records were deleted before they were read"
    }
    assert logged == {(stage.place.topic, 0, 3)}
    seen.send(1)
    with ThreadPoolExecutor(1) as pool:
        with in_thread(stage.start(kafka, tmp_path)):
            seen.until_committed(8, 3)
            with pytest.raises(KafkaUnavailable, match=f"the group {stage.group} cannot be set while workers run"):
                list(acknowledge_deleted(kafka, timeout_s=0.0))
            waits_for_the_worker = pool.submit(lambda: list(acknowledge_deleted(kafka, timeout_s=60.0)))
            seen.send(1)
            seen.until_committed(9, 3)
        assert waits_for_the_worker.result() == [Acknowledged(stage.group, stage.place.topic, 3)]
    assert seen.lag()[3:] == (0, None, {}), "what the worker committed last stays"
    seen.send(1)
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(10, 0)


@pytest.mark.broker
def test_trending_counts_them_too(clean_topics: RunningBroker, kafka: KafkaSettings, tmp_path: Path) -> None:
    seen = GroupPartition(clean_topics, kafka, "trending", topics.TRENDING_GROUP, first_of(topics.ACTIVITY))
    arguments = str(kafka.bootstrap_servers), "0.2", str(tmp_path)
    seen.send(2)
    with child("tests.kit.children.trending_stage", *arguments):
        seen.until_committed(2, 0)
    seen.send(5)
    seen.delete_before(5)
    with child("tests.kit.children.trending_stage", *arguments):
        seen.until_committed(7, 3)
        seen.send(1)
        seen.until_committed(8, 3)
    assert list(acknowledge_deleted(kafka)) == [Acknowledged(topics.TRENDING_GROUP, topics.ACTIVITY, 3)]
    seen.until_committed(8, 0)


def nothing_deleted(_: OffsetReader, places: Iterable[Place]) -> Offsets:
    return dict.fromkeys(places, Offset(0))


@pytest.mark.broker
def test_markers_aborted_records_and_a_log_that_was_never_read_are_no_loss(
    clean_topics: RunningBroker, kafka: KafkaSettings, tmp_path: Path
) -> None:
    stage = STAGES[1]
    seen = GroupPartition(clean_topics, kafka, stage.name, stage.group, stage.place)
    seen.send(3)
    seen.delete_before(2)
    transaction(kafka, *stage.place, commit=False)
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(5, 0)
    transaction(kafka, *stage.place, commit=True)
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(7, 0)
    assert seen.lag()[3:] == (0, None, {})


@pytest.mark.broker
def test_if_the_broker_lost_its_newest_records_nothing_is_read_twice(
    clean_topics: RunningBroker, kafka: KafkaSettings, tmp_path: Path
) -> None:
    """After a power cut the group may have committed more than there is. It goes on at the end."""
    stage = STAGES[0]
    seen = GroupPartition(clean_topics, kafka, stage.name, stage.group, stage.place)
    seen.send(3)
    commit(clean_topics, stage.group, {stage.place: 5})
    with capture_logs() as logs, in_thread(stage.start(kafka, tmp_path)):
        until(lambda: any("lost its newest" in entry["event"] for entry in logs), "the stage to have looked")
        seen.send(1)
        seen.until_committed(4, 0)
    assert len(read_topic(kafka, topics.DEAD_LETTERS)) == 1, "only the record that came afterwards"


@pytest.mark.broker
@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_new_records_with_the_offsets_of_lost_ones_are_read(
    clean_topics: RunningBroker, kafka: KafkaSettings, tmp_path: Path, stage: Stage
) -> None:
    """The stage was started and stopped before the new records came, and there are more of them than were lost."""
    seen = GroupPartition(clean_topics, kafka, stage.name, stage.group, stage.place)
    seen.send(3)
    commit(clean_topics, stage.group, {stage.place: 5})
    if stage.group == topics.CONTEXTS_GROUP:
        _have_counted(kafka, stage.place, Offset(5))
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(3, 0)
    seen.send(4)
    with in_thread(stage.start(kafka, tmp_path)):
        seen.until_committed(7, 0)
    assert len(read_topic(kafka, topics.DEAD_LETTERS)) == 4


def _have_counted(kafka: KafkaSettings, place: Place, offset: Offset) -> None:
    names = topics.context_names()
    changelog = changelog_of(place.topic, names)
    (cell,) = offset_cells({place: offset}, changelog, names)[place.partition].items()
    producer = Producer(producer_config(kafka))
    producer.produce(changelog, cell[1], cell[0], partition=place.partition)
    assert producer.flush(20) == 0


def test_metadata_of_another_program_counts_as_none() -> None:
    place = first_of(topics.POSTS)
    for text in ("", "deleted-unread=;", "deleted-unread=x;", "deleted-unread=-1;", "deleted-unread=7", "7;"):
        assert parse_committed([TopicPartition(*place, 3, text)]) == {place: Committed(Offset(3), 0)}
    assert parse_committed([TopicPartition(*place, 3, "deleted-unread=7;12;")]) == {place: Committed(Offset(3), 7)}
    assert parse_committed([to_commit(place, Offset(3), 4)]) == {place: Committed(Offset(3), 4)}
    assert parse_committed([TopicPartition(*place)]) == {place: Committed(None, 0)}


class Unknowing:
    """A consumer whose broker cannot give the offset of a partition now."""

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[Any]:
        error = KafkaError(KafkaError.NOT_COORDINATOR)
        return [SimpleNamespace(topic=at.topic, partition=at.partition, offset=-1001, error=error) for at in partitions]


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_an_offset_that_the_broker_cannot_tell_now_is_not_taken_for_none(tmp_path: Path, stage: Stage) -> None:
    """Else everything would be read again, or counted twice."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    consumer, partitions = cast(Consumer, Unknowing()), [TopicPartition(*stage.place)]
    if stage.name == "index":
        loop = IndexLoop(kafka, IndexSettings(), cast(Any, JournalTier(tmp_path / "journal")), GENERATION, 3600)
        assign = loop._on_assign
    else:
        processor = cast(Processor, None)
        options = {"transactional_id": "t", "batch_records": lambda: 1, "interval_s": 0.0}
        assign = TransactionalLoop(kafka, processor, group=stage.group, topics=[], **cast(Any, options))._on_assign
    with pytest.raises(KafkaUnavailable, match="NOT_COORDINATOR"):
        assign(consumer, partitions)


@pytest.mark.parametrize(
    ("group", "topic", "consequence"),
    [
        (topics.CONTEXTS_GROUP, topics.ACTIVITY, "counts and histories may be wrong; rebuild them"),
        (topics.CONTEXTS_GROUP, topics.POSTS, "nearline ingest FILE"),
        (topics.CONTEXTS_GROUP, topics.ACTIONS_BY_MEMBER, "nearline rebuild contexts"),
        (topics.CONTEXTS_GROUP, topics.ACTIVITY_BY_POST, "nearline rebuild contexts"),
        (topics.TRENDING_GROUP, topics.ACTIVITY, "trending lists are short of them"),
        (topics.encode_group(GENERATION), topics.POST_CONTEXTS, "missing until their posts and members change again"),
        (topics.encode_group(GENERATION), topics.replay_requests("encode", "post", GENERATION), "nearline replay"),
    ],
)
def test_the_sentence_names_topic_partitions_number_and_what_follows(group: str, topic: str, consequence: str) -> None:
    text = sentence(group, topic, {Partition(3): 5, Partition(0): 2})
    start = f"{topic}: up to 7 records (2 of partition 0, 5 of partition 3) were deleted before the group {group} had"
    assert text.startswith(start)
    assert consequence in text
    assert text.endswith("stop the workers and run: nearline acknowledge")
