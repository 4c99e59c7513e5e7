"""The hot feed on a real broker: what it takes, when it says that it has caught up, and what it survives."""

import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from structlog.testing import capture_logs

from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import HotRecord
from retriever.feed import offsets as feed_offsets
from retriever.feed.follower import CONSUMER_OVERRIDES
from retriever.feed.hot_feed import HotFeed
from retriever.feed.offsets import Place, PlaceOffsets
from retriever.feed.snapshots import Snapshots
from retriever.feed.trending_lists import TrendingLists
from retriever.reasons import Code, Reason
from schemas import topics
from schemas.embeddings import PostEmbedding, encode_embedding, pack_vector
from schemas.ids import Generation, Micros, PostId
from schemas.topics import TopicSpec
from schemas.trending import TrendingEntry, TrendingList, encode_trending
from streams.kafka.clients import admin, consumer_config, producer_config
from streams.kafka.topics import ensure_topics, topic_id
from streams.settings import KafkaSettings
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.retrievers import NOW_S, WINDOW_S, FallibleTier, scored_post, vector_with
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

PARTITIONS = 2


class Feeding:
    """A feed of a generation of its own on a broker, and a producer for its topic."""

    def __init__(self, running: RunningBroker) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=running.bootstrap_servers, partitions=PARTITIONS)
        self.generation = Generation(f"test-{uuid.uuid4().hex[:8]}")
        self.topic = topics.post_embeddings(self.generation)
        self.now_s = float(NOW_S)
        self.window_s = WINDOW_S
        self.stale_after_s = 30.0
        self.hot = FallibleTier(BruteHotTier(DIMENSION, HotSettings(window_s=WINDOW_S), IdTable()))
        self.trending = TrendingLists()
        self.producer = Producer(producer_config(self.kafka))
        self.snapshots: Path | None = None
        """None: no snapshots."""
        self._feeds = ExitStack()

    def close(self) -> None:
        """Stops all feeds."""
        self._feeds.close()

    def create_topics(self) -> None:
        ensure_topics(self.kafka, [TopicSpec(self.topic, "state"), TopicSpec(topics.TRENDING, "state")], 30)

    def start(self) -> HotFeed:
        feed = HotFeed(
            lambda: Consumer(consumer_config(self.kafka, "hot-feed", **CONSUMER_OVERRIDES)),
            self.generation,
            self.hot,
            self.trending,
            window_s=self.window_s,
            stale_after_s=self.stale_after_s,
            snapshots=None if self.snapshots is None else self._new_snapshots(self.snapshots),
            clock=lambda: self.now_s,
        )
        feed.start()
        self._feeds.callback(feed.close)
        return feed

    def _new_snapshots(self, folder: Path) -> Snapshots:
        return Snapshots(
            folder,
            self.hot,
            lambda: topic_id(self.kafka, self.topic),
            every_s=300,
            erase_within_s=3600,
            clock=lambda: self.now_s,
        )

    def next_process(self) -> None:
        """Its hot tier is empty."""
        self.close()
        self.hot = FallibleTier(MatrixHotTier(DIMENSION, HotSettings(window_s=self.window_s, device="cpu"), IdTable()))

    def caught_up(self) -> HotFeed:
        feed = self.start()
        until(lambda: feed.problem is None, "the feed to catch up")
        return feed

    def send(self, *embeddings: PostEmbedding, age_s: float = 0.0, **over: Any) -> None:
        for embedding in embeddings:
            timestamp = int((NOW_S - age_s) * 1000)
            self.producer.produce(
                self.topic, encode_embedding(embedding), embedding.post_id, timestamp=timestamp, **over
            )
        assert self.producer.flush(30) == 0

    def floor(self) -> dict[int, int]:
        return dict(self.hot.floor())

    def live(self) -> list[str]:
        return sorted(stored.post_id for stored in self.hot.scroll_posts())

    def until_live(self, *post_ids: str) -> None:
        until(lambda: self.live() == list(post_ids), f"{post_ids} to be live")

    def ends(self) -> dict[int, int]:
        """High watermarks, control records and open transactions included."""
        over = {"isolation.level": "read_uncommitted"}
        consumer = Consumer(consumer_config(self.kafka, "ends", **over))
        places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=20)[1] for place in places}
        consumer.close()
        return ends


@pytest.fixture
def feeding(clean_topics: RunningBroker) -> Iterator[Feeding]:
    yield from _feeding(clean_topics)


@pytest.fixture
def stoppable(fresh_broker: RunningBroker) -> Iterator[Feeding]:
    """On a broker that the test may stop."""
    yield from _feeding(fresh_broker)


def _feeding(running: RunningBroker) -> Iterator[Feeding]:
    feeding = Feeding(running)
    feeding.create_topics()
    yield feeding
    feeding.close()


def test_it_reads_old_records_and_follows_new_ones(feeding: Feeding) -> None:
    feeding.send(scored_post("a"), scored_post("b"), scored_post("c"))
    feeding.send(scored_post("b", revision=2, deleted=True))
    feed = feeding.caught_up()
    assert feeding.live() == ["a", "c"]
    feeding.send(scored_post("d"), scored_post("a", revision=2, deleted=True))
    feeding.until_live("c", "d")
    assert feed.progress().positions == feeding.ends()


def test_only_committed_records_count_and_control_records_are_passed(feeding: Feeding) -> None:
    over = {"transactional.id": feeding.generation}
    plain, feeding.producer = feeding.producer, Producer(producer_config(feeding.kafka, **over))
    feeding.producer.init_transactions(30)
    feeding.producer.begin_transaction()
    feeding.send(scored_post("a"), scored_post("b"), scored_post("c"))
    feeding.producer.abort_transaction(30)
    feeding.producer.begin_transaction()
    feeding.send(scored_post("d"), scored_post("e"), scored_post("f"))
    feeding.producer.commit_transaction(30)
    feed = feeding.caught_up()
    feeding.until_live("d", "e", "f")
    until(lambda: feed.progress().positions == feeding.ends(), "the offsets to pass the commit marks")
    feeding.producer.begin_transaction()
    feeding.send(scored_post("g"))
    feeding.producer.commit_transaction(30)
    feeding.until_live("d", "e", "f", "g")
    until(lambda: feed.progress().positions == feeding.ends(), "the offsets to pass the last commit mark")
    feeding.producer = plain


def test_it_begins_where_the_window_begins_and_says_so(feeding: Feeding) -> None:
    """By the time of the record, however old the post is."""
    feeding.send(scored_post("a"), scored_post("b"), age_s=WINDOW_S + 10, partition=0)
    feeding.send(scored_post("c", age_s=3 * WINDOW_S), age_s=WINDOW_S - 10, partition=0)
    feeding.send(scored_post("d"), age_s=WINDOW_S + 10, partition=1)
    feeding.caught_up()
    assert feeding.live() == ["c"]
    assert feeding.floor() == {0: 2, 1: 1}


def test_the_floor_of_a_topic_that_is_younger_than_the_window_is_its_start(feeding: Feeding) -> None:
    feeding.send(scored_post("a"), age_s=WINDOW_S - 10, partition=0)
    feeding.caught_up()
    assert feeding.floor() == {0: 0, 1: 0}


def test_an_endless_window_begins_at_the_start(feeding: Feeding) -> None:
    feeding.window_s = math.inf
    feeding.hot.tier = BruteHotTier(DIMENSION, HotSettings(window_s=math.inf), IdTable())
    feeding.send(scored_post("a"), age_s=30 * WINDOW_S, partition=0)
    feeding.caught_up()
    assert feeding.live() == ["a"]
    assert feeding.floor() == {0: 0, 1: 0}


def test_the_floor_is_the_start_also_where_the_first_records_are_gone(feeding: Feeding) -> None:
    _allow_deletes(feeding.kafka, feeding.topic)
    feeding.send(scored_post("a"), scored_post("b"), partition=0)
    _delete_before(feeding.kafka, TopicPartition(feeding.topic, 0, 1))
    feeding.caught_up()
    assert feeding.live() == ["b"]
    assert feeding.floor() == {0: 0, 1: 0}


def test_records_carry_their_place_and_time(feeding: Feeding) -> None:
    records: list[HotRecord] = []
    apply = feeding.hot.tier.apply

    def recorded(batch: Sequence[HotRecord]) -> int:
        records.extend(batch)
        return int(apply(batch))

    feeding.hot.tier.apply = recorded
    feeding.send(scored_post("a"), scored_post("b"), age_s=20, partition=1)
    feeding.send(scored_post("c"), age_s=-3600, partition=1)
    feeding.caught_up()
    assert [record[1:] for record in records] == [
        (1, 0, (NOW_S - 20) * 1_000_000),
        (1, 1, (NOW_S - 20) * 1_000_000),
        (1, 2, NOW_S * 1_000_000),
    ], "a time that lies ahead counts as now"


def test_records_older_than_the_window_are_expired(feeding: Feeding) -> None:
    feeding.send(scored_post("a"), age_s=WINDOW_S - 10, partition=0)
    feeding.send(scored_post("b"), partition=0)
    feeding.caught_up()
    assert feeding.live() == ["a", "b"]
    feeding.now_s += 11
    feeding.until_live("b")
    assert feeding.floor() == {0: 1, 1: 0}


def test_records_that_become_dead_letters_are_counted_and_left_out(feeding: Feeding) -> None:
    for partition in range(PARTITIONS):
        feeding.producer.produce(feeding.topic, b"\xc1", "x", partition=partition)
        feeding.producer.produce(feeding.topic, None, "y", partition=partition)
    whole = vector_with(0.5)
    feeding.send(scored_post("a"), scored_post("b"))
    for vector in (whole[:1], whole + np.float32(np.nan), whole + np.float32(np.inf), 2 * whole, 0 * whole):
        feeding.send(msgspec.structs.replace(scored_post("a", revision=2), vector=pack_vector(vector)))
    # Nobody looks at the vector of what is deleted.
    feeding.send(msgspec.structs.replace(scored_post("b", revision=2, deleted=True), vector=pack_vector(2 * whole)))
    feed = feeding.caught_up()
    assert feeding.live() == ["a"]
    assert [post.revision for post in feeding.hot.posts([PostId("a")])] == [1]
    assert feed.skipped_records == 2 * PARTITIONS + 5
    assert feed.progress().positions == feeding.ends()


def test_freshness_is_that_of_the_records_after_it_caught_up(feeding: Feeding) -> None:
    def origin(age_s: float) -> list[tuple[str, bytes]]:
        return [(topics.ORIGIN_HEADER, str(int((NOW_S - age_s) * 1000)).encode())]

    feeding.send(scored_post("a"), headers=origin(3600))
    feed = feeding.caught_up()
    assert feed.freshness.recent() == []
    feeding.send(scored_post("b"), headers=origin(2.5))
    feeding.send(scored_post("c"))
    feeding.until_live("a", "b", "c")
    until(lambda: feed.freshness.recent() == [2.5], "one sample")


def test_the_trending_lists_are_read_whole_and_followed(feeding: Feeding) -> None:
    post_id = f"post-{feeding.generation}"

    def send(partition: int, score: float) -> None:
        entries = [TrendingEntry(PostId(post_id), score)]
        body = encode_trending(TrendingList(partition, Micros(NOW_S * 1_000_000), 3600.0, entries))
        feeding.producer.produce(topics.TRENDING, body, str(partition), timestamp=1)
        assert feeding.producer.flush(30) == 0

    def score() -> float | None:
        return dict(feeding.trending.ranked()).get(PostId(post_id))

    send(901, 1.0)
    send(902, 2.0)
    feeding.caught_up()
    assert score() == 3.0
    send(901, 5.0)
    until(lambda: score() == 7.0, "the new list")


def test_a_topic_that_is_not_there_yet_is_waited_for(clean_topics: RunningBroker) -> None:
    feeding = Feeding(clean_topics)
    try:
        with capture_logs() as logs:
            feed = feeding.start()
            until(lambda: bool(logs), "the feed to log what is missing")
        assert "Unknown topic" in logs[0]["error"]
        assert feed.problem == Reason(
            Code.HOT_CATCHING_UP, "the hot feed has not begun to read; the log of the retriever says why"
        )
        assert feed.progress().positions == {}
        feeding.create_topics()
        until(lambda: feed.problem is None, "the feed to catch up")
    finally:
        feeding.close()


def test_a_tier_that_fails_costs_no_record(feeding: Feeding) -> None:
    feed = feeding.caught_up()
    feeding.hot.fails = "apply"
    feeding.send(scored_post("a"), scored_post("b"), scored_post("c"))
    until(lambda: feeding.hot.failures > 1, "the feed to meet the failure, and once more")
    assert set(feed.progress().positions.values()) == {0}
    feeding.hot.fails = False
    feeding.until_live("a", "b", "c")


def test_records_deleted_under_it_make_it_begin_that_partition_anew(feeding: Feeding) -> None:
    """What it holds of that partition may be outdated: the record that deleted it may be gone."""
    _allow_deletes(feeding.kafka, feeding.topic)
    feeding.send(scored_post("a"), partition=0)
    feeding.send(scored_post("z"), partition=1)
    feed = feeding.caught_up()
    feeding.hot.fails = "apply"
    feeding.send(scored_post("b"), partition=0)
    feeding.send(scored_post("c"), partition=1)
    _delete_before(feeding.kafka, TopicPartition(feeding.topic, 0, 2))
    feeding.send(scored_post("d"), partition=0)
    problems = _collected(lambda: feed.problem)
    feeding.hot.fails = False
    feeding.until_live("c", "d", "z")
    assert feeding.floor() == {0: 0, 1: 0}, "all that is left of the topic is held"
    until(lambda: feed.problem is None, "the feed to catch up again")
    assert Code.HOT_CATCHING_UP in {problem.code for problem in problems() if problem is not None}


def assert_behind(feed: HotFeed, sentence_ends: str) -> None:
    problem = feed.problem
    assert problem is not None
    assert problem.code == Code.HOT_BEHIND
    assert problem.detail.startswith("the hot feed has been behind the topic for ")
    assert problem.detail.endswith(sentence_ends)


def test_after_a_restart_it_goes_on_from_the_snapshot(feeding: Feeding, tmp_path: Path) -> None:
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("old"), age_s=WINDOW_S - 10, partition=0)
    feeding.send(scored_post("a"), scored_post("b"), partition=0)
    feeding.caught_up()
    feeding.next_process()
    feeding.send(scored_post("a", revision=2, deleted=True), scored_post("c"), partition=0)
    applied: list[str] = []
    apply = feeding.hot.tier.apply

    def recorded(batch: Sequence[HotRecord]) -> int:
        applied.extend(record.embedding.post_id for record in batch)
        return int(apply(batch))

    feeding.hot.tier.apply = recorded
    feeding.caught_up()
    feeding.now_s += 11
    feeding.until_live("b", "c")
    assert applied == ["a", "c"], "the topic was read on, not from the start"
    assert feeding.floor() == {0: 1, 1: 0}


def test_a_snapshot_whose_next_records_are_gone_is_not_trusted(feeding: Feeding, tmp_path: Path) -> None:
    """The record that deleted a post may be among them."""
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("a"), partition=0)
    feeding.send(scored_post("z"), partition=1)
    feeding.caught_up()
    feeding.next_process()
    feeding.send(scored_post("a", revision=2, deleted=True), scored_post("b"), partition=0)
    _allow_deletes(feeding.kafka, feeding.topic)
    _delete_before(feeding.kafka, TopicPartition(feeding.topic, 0, 2))
    feeding.caught_up()
    assert feeding.live() == ["b", "z"]
    assert feeding.floor() == {0: 0, 1: 0}


def test_a_topic_that_was_made_again_is_read_from_its_start(feeding: Feeding, tmp_path: Path) -> None:
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("a"), partition=0)
    feeding.caught_up()
    feeding.next_process()
    client = admin(feeding.kafka)
    client.delete_topics([feeding.topic])[feeding.topic].result(20)
    until(lambda: feeding.topic not in client.list_topics(timeout=20).topics, "the topic to be gone")
    feeding.create_topics()
    feeding.send(scored_post("b"), scored_post("c"), partition=0)
    feeding.caught_up()
    assert feeding.live() == ["b", "c"]


def _collected(ask: Callable[[], Reason | None]) -> Callable[[], list[Reason | None]]:
    """Asks again and again in a thread, until the result is called: that returns all answers."""
    answers: list[Reason | None] = []
    stop = Event()

    def run() -> None:
        while not stop.wait(0.01):
            answers.append(ask())

    thread = Thread(target=run, daemon=True)
    thread.start()

    def end() -> list[Reason | None]:
        stop.set()
        thread.join()
        return answers

    return end


def _allow_deletes(kafka: KafkaSettings, topic: str) -> None:
    """A compacted topic refuses them."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (("cleanup.policy", "delete"), ("retention.ms", "-1"))
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = admin(kafka)
    client.incremental_alter_configs([resource])[resource].result(20)


def _delete_before(kafka: KafkaSettings, place: TopicPartition) -> None:
    client = admin(kafka)
    client.delete_records([place])[place].result(20)


def test_it_outlives_the_broker(stoppable: Feeding, fresh_broker: RunningBroker) -> None:
    stoppable.send(scored_post("old"), age_s=WINDOW_S - 10, partition=0)
    stoppable.send(scored_post("a"), partition=0)
    feed = stoppable.caught_up()
    fresh_broker.kill()
    stoppable.now_s += 11
    stoppable.until_live("a")
    fresh_broker.start()
    stoppable.send(scored_post("b"))
    stoppable.until_live("a", "b")
    until(lambda: feed.problem is None, "the feed to follow again")


def test_a_broker_that_answers_no_more_is_noticed_by_the_clock(stoppable: Feeding, fresh_broker: RunningBroker) -> None:
    stoppable.stale_after_s = 2.5
    feed = stoppable.caught_up()
    process = fresh_broker.embedded.running()
    assert process is not None
    process.suspend()
    try:
        until(lambda: feed.problem is not None, "the feed to notice")
        assert_behind(feed, "it cannot read now")
    finally:
        process.resume()
    until(lambda: feed.problem is None, "the feed to follow again")


def test_a_tier_that_hangs_is_noticed_by_the_clock(feeding: Feeding) -> None:
    """The feed's thread is stuck in a call meanwhile."""
    feeding.stale_after_s = 2.5
    feed = feeding.caught_up()
    apply, goes_on = feeding.hot.tier.apply, Event()
    feeding.hot.tier.apply = lambda batch: (goes_on.wait(), apply(batch))
    try:
        feeding.send(scored_post("a"))
        until(lambda: feed.problem is not None, "the feed to notice")
        assert_behind(feed, "it cannot read now")
    finally:
        goes_on.set()
    until(lambda: feed.problem is None, "the feed to follow again")


def test_an_idle_topic_is_not_behind(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> None:
    feeding.stale_after_s = 2.5
    feeding.send(scored_post("a"))
    feed = feeding.caught_up()
    problems = _collected(lambda: feed.problem)
    asked: list[None] = []
    ends = feed_offsets.ends

    def counted(consumer: Consumer, places: Iterable[Place]) -> PlaceOffsets:
        asked.append(None)
        return ends(consumer, places)

    monkeypatch.setattr(feed_offsets, "ends", counted)
    until(lambda: len(asked) > 2 * feeding.stale_after_s, "twice the time after which it would be behind")
    assert set(problems()) == {None}
