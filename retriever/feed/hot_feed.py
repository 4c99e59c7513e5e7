"""The hot feed: reads the newest records into the hot tier and the trending lists, and expires old posts.

What it reads and when is the follower's business (`follower.py`). Knows neither the cold tier nor requests.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message

from indexer.freshness import FreshKind, Freshness, FreshnessCount, FreshnessCounts, FreshnessWindow
from indexer.records import read_embedding
from indexer.tiers import HotRecord, HotTier, Offsets
from retriever.feed import offsets as feed_offsets
from retriever.feed.end_watch import EndWatch
from retriever.feed.follower import Follower
from retriever.feed.member_feed import MemberFeedFigures
from retriever.feed.offsets import Place, PlaceOffsets
from retriever.feed.records import SkippingRecords, age_s, place_of
from retriever.feed.snapshots import Snapshots
from retriever.feed.trending_lists import TrendingLists
from retriever.reasons import Reason
from schemas import topics, traces
from schemas.api import FreshnessStatus, HotPositions
from schemas.embeddings import PostEmbedding
from schemas.ids import Generation, Micros, Offset, Partition
from schemas.trending import decode_trending

STALE_AFTER_S: Final = 10.0

_EXPIRE_EVERY_S: Final = 1.0
_AFTER_ALL: Final = Offset(2**62)


class FeedFigures(NamedTuple):
    """Of one generation's feeds."""

    generation: Generation
    skipped_records: int
    """Since the start: they are damaged, or the tier refuses them."""
    freshness: Freshness
    by_kind: Mapping[FreshKind, FreshnessCount] = MappingProxyType({})
    """Freshness since the start."""
    positions: Offsets = MappingProxyType({})
    """The next offset of posts to read, of each partition."""
    members: MemberFeedFigures | None = None
    """Of the member feed. None if there is none."""


class HotFeed:
    """Call `start` and `close` once each. Any thread may use the other methods."""

    def __init__(
        self,
        new_consumer: Callable[[], Consumer],
        generation: Generation,
        hot: HotTier,
        trending: TrendingLists,
        *,
        window_s: float,
        stale_after_s: float = STALE_AFTER_S,
        snapshots: Snapshots | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`new_consumer` makes a consumer with the options CONSUMER_OVERRIDES. `clock` gives seconds since 1970."""
        self.freshness = FreshnessWindow()
        self._by_kind = FreshnessCounts()
        self._generation = generation
        self._posts_topic = topics.post_embeddings(generation)
        self._hot = hot
        self._trending = trending
        self._snapshots = snapshots
        self._clock = clock
        self._records = SkippingRecords()
        self._last_expiry_s = 0.0
        self._watch = EndWatch("the hot feed", stale_after_s)
        self._window_s = window_s
        self._on_begun: Callable[[], object] = _ignore
        names = (self._posts_topic, topics.TRENDING)
        self._follower = Follower("hot-feed", new_consumer, names, self, self._watch)

    def start(self) -> None:
        self._follower.start()

    def watch(self, on_begun: Callable[[], object]) -> None:
        """From now on `on_begun` is called when partitions are begun anew: the broker may have lost their records, and
        others with the same offsets may come. The feed's thread calls it, so it must return quickly."""
        self._on_begun = on_begun

    def stop(self) -> None:
        """Tells the thread to end. `close` also waits for it."""
        self._follower.stop()

    def close(self) -> None:
        self._follower.close()

    @property
    def problem(self) -> Reason | None:
        """None while the hot tier holds everything that was in the topics a moment ago. Ask before a search: what it
        says then holds for that search."""
        return self._watch.problem()

    def figures(self) -> list[FeedFigures]:
        freshness, by_kind = self.freshness.summary(), self._by_kind.counts()
        return [FeedFigures(self._generation, self._records.skipped, freshness, by_kind, self._next_offsets())]

    def progress(self, generation: Generation | None = None) -> HotPositions:
        """Of this generation, which is the only one that may be named."""
        freshness = self.freshness.summary()
        return HotPositions(
            generation=self._generation,
            topic=self._posts_topic,
            caught_up=self._watch.has_caught_up,
            positions={int(partition): int(offset) for partition, offset in self._next_offsets().items()},
            posts=self._hot.count(),
            freshness_s=FreshnessStatus(p50=freshness.p50, p99=freshness.p99, newest_age_s=freshness.newest_age_s),
        )

    def _next_offsets(self) -> dict[Partition, Offset]:
        """Of the posts' topic."""
        return self._of_posts(self._follower.offsets)

    def _of_posts(self, offsets: PlaceOffsets) -> dict[Partition, Offset]:
        return {
            Partition(number): Offset(offset)
            for (topic, number), offset in offsets.items()
            if topic == self._posts_topic
        }

    # The follower's thread calls all of the following.

    def find_starts(self, consumer: Consumer, places: list[Place]) -> PlaceOffsets:
        """Posts from the beginning of the window on, and all trending lists."""
        posts = [place for place in places if place[0] == self._posts_topic]
        lists = [place for place in places if place[0] != self._posts_topic]
        now_s = self._clock()
        return {
            **feed_offsets.window_starts(consumer, posts, self._window_s, now_s),
            **feed_offsets.window_starts(consumer, lists, math.inf, now_s),
        }

    def resume(self) -> PlaceOffsets:
        """Takes over the snapshot of an earlier process, if there is one."""
        offsets = {} if self._snapshots is None else self._snapshots.load()
        return {(self._posts_topic, int(partition)): int(offset) for partition, offset in offsets.items()}

    def lost(self) -> None:
        if self._snapshots is not None:
            self._snapshots.discard()

    def begin(self, floor: PlaceOffsets) -> None:
        floor_of_posts = self._of_posts(floor)
        # The first call makes the tier forget what it holds of these partitions, also if the floor does not move back.
        self._hot.begin(dict.fromkeys(floor_of_posts, _AFTER_ALL))
        self._hot.begin(floor_of_posts)
        self._on_begun()

    def receive(self, records: Sequence[Message]) -> None:
        hot_records: list[HotRecord] = []
        events: list[tuple[Message, FreshKind]] = []
        for message in records:
            if message.topic() != self._posts_topic:
                self._take_trending(message)
            elif (embedding := self._records.decode(message, _decode_post)) is not None:
                hot_records.append(HotRecord(embedding, *place_of(message), self._at_us(message)))
                events.append((message, "delete" if embedding.deleted else "post"))
        self._records.apply(hot_records, self._hot.apply)
        for message, _ in events:
            traces.passed("hot", message)
        if self._watch.has_caught_up:
            self._measure_freshness(events)

    def _measure_freshness(self, events: Sequence[tuple[Message, FreshKind]]) -> None:
        now_s = self._clock()
        ages = [(age, kind) for message, kind in events if (age := age_s(message, now_s)) is not None]
        self.freshness.add(age for age, _ in ages)
        for age, kind in ages:
            self._by_kind.add(kind, age)

    def tick(self) -> None:
        now_s = self._clock()
        if abs(now_s - self._last_expiry_s) >= _EXPIRE_EVERY_S:
            self._hot.expire(Micros(int(now_s * 1e6)))
            self._last_expiry_s = now_s
        if self._snapshots is not None:
            self._snapshots.tick(self._next_offsets(), caught_up=self._watch.has_caught_up)

    def finish(self) -> None:
        if self._snapshots is not None and self._watch.has_caught_up:
            self._snapshots.finish(self._next_offsets())

    def _take_trending(self, message: Message) -> None:
        if message.value() is not None:
            trending = self._records.decode(message, lambda value: decode_trending(value or b""))
            if trending is not None:
                self._trending.put(trending)

    def _at_us(self, message: Message) -> Micros:
        """When the record was written. A producer's clock may run ahead, and such a record would stay too long."""
        _, at_ms = message.timestamp()
        now_us = int(self._clock() * 1e6)
        return Micros(min(at_ms * 1000, now_us) if at_ms >= 0 else now_us)


def _decode_post(value: bytes | None) -> PostEmbedding:
    """Raises BadRecord."""
    embedding = read_embedding("post", value)
    assert isinstance(embedding, PostEmbedding)
    return embedding


def _ignore() -> None:
    """Until somebody watches."""
