"""A hot feed on a real broker, with a clock that the test sets and a hot tier that can be made to fail."""

import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from retriever.feed.follower import CONSUMER_OVERRIDES
from retriever.feed.hot_feed import HotFeed
from retriever.feed.snapshots import Snapshots
from retriever.feed.trending_lists import TrendingLists
from schemas import topics
from schemas.embeddings import PostEmbedding, encode_embedding
from schemas.ids import Generation
from schemas.topics import TopicSpec
from streams.kafka.clients import consumer_config, producer_config
from streams.kafka.topics import ensure_topics, topic_id
from streams.settings import KafkaSettings
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import delete_before
from tests.kit.retrievers import NOW_S, WINDOW_S, FallibleTier
from tests.kit.waiting import until

PARTITIONS = 2


class Feeding:
    """A feed of a generation of its own on a broker, and a producer for its topic."""

    def __init__(self, running: RunningBroker) -> None:
        self._broker = running
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

    def delete_before(self, partition: int, offset: int) -> None:
        """As retention would."""
        delete_before(self._broker, self.topic, partition, offset)

    def ends(self) -> dict[int, int]:
        """High watermarks, control records and open transactions included."""
        over = {"isolation.level": "read_uncommitted"}
        consumer = Consumer(consumer_config(self.kafka, "ends", **over))
        places = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=20)[1] for place in places}
        consumer.close()
        return ends
