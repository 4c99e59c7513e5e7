"""How far the index stage is, asked of a real broker."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from retriever.feed.index_position import IndexPosition
from schemas import topics
from schemas.ids import Partition
from streams.kafka.clients import new_consumer
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit
from tests.kit.kafka.topics import make_topics
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

POSTS = topics.post_embeddings(GENERATION)
MEMBERS = topics.member_embeddings(GENERATION)
ZERO, ONE = Partition(0), Partition(1)
GROUP = topics.index_group(GENERATION)


def new_position(kafka: KafkaSettings) -> IndexPosition:
    over = {"isolation.level": "read_uncommitted"}
    return IndexPosition(lambda: new_consumer(kafka, GROUP, **over), GENERATION, every_s=0.1)


@pytest.fixture
def position(kafka: KafkaSettings) -> Iterator[IndexPosition]:
    with closing(new_position(kafka)) as position:
        position.start()
        yield position


def test_nothing_is_known_before_the_broker_has_answered(kafka: KafkaSettings) -> None:
    position = new_position(kafka)
    assert position.posts() == position.members() == {}
    assert position.members_if_known() is None


def test_without_commits_it_is_at_the_start(position: IndexPosition) -> None:
    until(lambda: position.members_if_known() == {0: 0, 1: 0}, "the first answer")
    assert position.posts() == {0: 0, 1: 0}


def test_it_follows_what_is_committed(position: IndexPosition, clean_topics: RunningBroker) -> None:
    commit(clean_topics, GROUP, {(POSTS, 1): 7, (MEMBERS, 0): 3})
    until(lambda: position.posts() == {0: 0, 1: 7}, "the posts' offsets")
    until(lambda: position.members() == {0: 3, 1: 0}, "the members' offsets")
    commit(clean_topics, GROUP, {(POSTS, 1): 9})
    until(lambda: position.posts() == {0: 0, 1: 9}, "the next offset")


def test_it_shows_that_records_were_written_again(position: IndexPosition, clean_topics: RunningBroker) -> None:
    until(lambda: position.replayed() is not None, "the first answer")
    before = position.replayed()
    commit(clean_topics, GROUP, {(POSTS, 1): 7, (MEMBERS, 0): 3})
    until(lambda: position.posts().get(ONE) == 7, "the posts' offset")
    assert position.replayed() == before, "new records are no replay"
    commit(clean_topics, GROUP, {(topics.replay_requests("index", "member", GENERATION), 1): 2})
    until(lambda: position.replayed() != before, "the offset of the requests")


def test_a_group_that_starts_again_is_followed_back(position: IndexPosition, clean_topics: RunningBroker) -> None:
    """As when the cold tier is built anew: then it holds nothing any more."""
    commit(clean_topics, GROUP, {(POSTS, 1): 7})
    until(lambda: position.posts().get(ONE) == 7, "the offset")
    commit(clean_topics, GROUP, {(POSTS, 1): 0})
    until(lambda: position.posts().get(ONE) == 0, "the offset from before")


def test_it_outlives_the_broker(fresh_broker: RunningBroker) -> None:
    kafka = make_topics(fresh_broker)
    with closing(new_position(kafka)) as position:
        position.start()
        commit(fresh_broker, GROUP, {(POSTS, 0): 1})
        until(lambda: position.posts().get(ZERO) == 1, "the offset")
        fresh_broker.kill()
        assert position.posts() == {0: 1, 1: 0}, "what was written stays written"
        fresh_broker.start()
        commit(fresh_broker, GROUP, {(POSTS, 0): 2})
        until(lambda: position.posts().get(ZERO) == 2, "the next offset", timeout_s=60)
