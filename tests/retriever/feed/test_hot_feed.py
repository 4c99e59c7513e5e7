"""The hot feed on a real broker: where it begins, what it takes, and what it tells the tier."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import HotRecord
from schemas import topics
from schemas.embeddings import pack_vector
from schemas.ids import Micros, PostId
from schemas.trending import TrendingEntry, TrendingList, encode_trending
from streams.kafka.clients import producer_config
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION
from tests.kit.hot_feeding import Feeding
from tests.kit.retrievers import NOW_S, WINDOW_S, scored_post, vector_with
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

PARTITIONS = 2


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


def test_the_floor_is_not_the_start_where_the_first_records_were_deleted(feeding: Feeding) -> None:
    """The cold tier may still have them, so it has to be asked."""
    feeding.send(scored_post("a"), scored_post("b"), partition=0)
    feeding.delete_before(0, 1)
    feeding.caught_up()
    assert feeding.live() == ["b"]
    assert feeding.floor() == {0: 1, 1: 0}


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
    (figures,) = feed.figures()
    assert figures.skipped_records == 2 * PARTITIONS + 5
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
    feeding.send(scored_post("b", revision=2, deleted=True), headers=origin(4.0))
    until(lambda: feed.freshness.recent() == [2.5, 4.0], "the deletion's sample")
    (figures,) = feed.figures()
    assert {kind: (count.at_most[-1], count.sum_s) for kind, count in figures.by_kind.items()} == {
        "post": (1, 2.5),
        "delete": (1, 4.0),
    }
    assert figures.positions == feeding.ends()


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
