"""Puts together what the retriever reads from Kafka: the hot feed, the member feed, and how far the index stage is."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer

from encoders.package.manifest import MemberVectorsForm
from encoders.package.model_package import ModelPackage
from indexer.tiers import HotTier
from nearline.generations.local_files import hot_folder
from nearline.settings.settings import Settings
from retriever.feed.end_watch import EndWatch
from retriever.feed.follower import CONSUMER_OVERRIDES
from retriever.feed.hot_feed import FeedFigures, HotFeed
from retriever.feed.index_position import IndexPosition
from retriever.feed.member_feed import MemberFeed
from retriever.feed.member_store import MemberStore
from retriever.feed.snapshots import Snapshots, remove_snapshots
from retriever.feed.trending_lists import TrendingLists
from schemas import topics
from schemas.api import HotPositions
from schemas.ids import Generation
from schemas.stages import index_reads
from streams.kafka.clients import new_consumer
from streams.kafka.topics import topic_id


class Feeds(NamedTuple):
    index_position: IndexPosition
    hot: HotFeed
    members: MemberStore
    member_feed: MemberFeed

    def progress(self, generation: Generation | None = None) -> HotPositions:
        """Of the hot feed."""
        return self.hot.progress(generation)

    def figures(self) -> list[FeedFigures]:
        return [figures._replace(members=self.member_feed.figures()) for figures in self.hot.figures()]

    @contextmanager
    def running(self) -> Iterator[None]:
        """They read from now on, until the block is left."""
        with closing(self.index_position), closing(self.hot), closing(self.member_feed):
            for part in (self.index_position, self.hot, self.member_feed):
                part.start()
            try:
                yield
            finally:
                # All of them first, because each may wait some seconds for the broker.
                self.stop()

    def stop(self) -> None:
        """Tells them to end. Returns at once; the end of `running` waits for them."""
        for part in (self.index_position, self.hot, self.member_feed):
            part.stop()


def new_feeds(
    settings: Settings, package: ModelPackage, hot: HotTier, trending: TrendingLists, *, writes_snapshots: bool
) -> Feeds:
    """Asks the broker nothing yet. `writes_snapshots`: False for all processes of a retriever but one."""
    index_position = IndexPosition(_index_group(settings, package), package.generation)
    watch = EndWatch("the member feed", settings.hot.stale_after_s)
    form = package.manifest.member_vectors
    members = MemberStore(
        settings.serve.members,
        package.dimension,
        indexed=index_position.members,
        feed_problem=watch.problem,
        most_interests=form.most if isinstance(form, MemberVectorsForm) else 0,
    )
    member_feed = MemberFeed(
        _reader(settings, "member-feed"),
        package.generation,
        members,
        watch,
        index_position.members_if_known,
        window_s=settings.hot.window_s,
    )
    hot_feed = HotFeed(
        _reader(settings, "hot-feed"),
        package.generation,
        hot,
        trending,
        window_s=settings.hot.window_s,
        stale_after_s=settings.hot.stale_after_s,
        snapshots=_snapshots(settings, package, hot, writes=writes_snapshots),
    )
    return Feeds(index_position, hot_feed, members, member_feed)


def _snapshots(settings: Settings, package: ModelPackage, hot: HotTier, *, writes: bool) -> Snapshots | None:
    folder = hot_folder(settings.data_dir, package.generation)
    if settings.hot.snapshot_every_s is None:
        remove_snapshots(folder)
        return None
    topic = topics.post_embeddings(package.generation)
    return Snapshots(
        folder,
        hot,
        lambda: topic_id(settings.kafka, topic),
        every_s=settings.hot.snapshot_every_s,
        erase_within_s=settings.kafka.erase_within_s,
        writes=writes,
    )


def _reader(settings: Settings, name: str) -> Callable[[], Consumer]:
    """The client demands the name of a group, but these consumers never join one and commit nothing."""
    return lambda: new_consumer(settings.kafka, name, **CONSUMER_OVERRIDES)


def _index_group(settings: Settings, package: ModelPackage) -> Callable[[], Consumer]:
    group = index_reads(package.generation).group
    return lambda: new_consumer(settings.kafka, group, **{"isolation.level": "read_uncommitted"})
