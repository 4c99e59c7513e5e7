"""The lists of all partitions, merged into one order."""

import pytest

from retriever.feed.trending_lists import TrendingLists, TrendingPost
from schemas.ids import Micros, PostId
from schemas.trending import TrendingEntry, TrendingList

HOUR_US = 3_600_000_000


def put(lists: TrendingLists, partition: int, at_us: int = 0, **scores: float) -> None:
    entries = [TrendingEntry(PostId(post_id), score) for post_id, score in scores.items()]
    lists.put(TrendingList(partition, Micros(at_us), 3600.0, entries))


def test_scores_of_a_post_in_several_partitions_add_up() -> None:
    lists = TrendingLists()
    put(lists, 0, a=3, b=2)
    put(lists, 1, b=2, c=1)
    assert lists.ranked()[:2] == (TrendingPost(PostId("b"), 4), TrendingPost(PostId("a"), 3))


def test_an_older_list_decays_to_the_newest() -> None:
    lists = TrendingLists()
    put(lists, 0, at_us=0, a=4)
    put(lists, 1, at_us=HOUR_US, b=3)
    assert lists.ranked() == (TrendingPost(PostId("b"), 3), TrendingPost(PostId("a"), 2))


def test_a_new_list_takes_the_place_of_the_old() -> None:
    lists = TrendingLists()
    put(lists, 0, a=1)
    put(lists, 0, b=1)
    assert [post.post_id for post in lists.ranked()] == ["b"]


def test_the_lists_are_ranked_once_for_each_change() -> None:
    lists = TrendingLists()
    put(lists, 0, a=1)
    ranked = lists.ranked()
    assert lists.ranked() is ranked
    put(lists, 1, b=2)
    assert [post.post_id for post in lists.ranked()] == ["b", "a"]


def test_equal_scores_are_in_the_order_of_ids() -> None:
    lists = TrendingLists()
    put(lists, 0, c=1, a=1, b=1)
    assert [post.post_id for post in lists.ranked()] == ["a", "b", "c"]


def test_a_list_from_long_ago_keeps_its_order() -> None:
    lists = TrendingLists()
    put(lists, 0, at_us=0, a=2, b=1)
    put(lists, 1, at_us=500 * HOUR_US, c=1)
    (_, second, third) = lists.ranked()
    assert (second.post_id, third.post_id) == ("a", "b")
    assert second.score > third.score > 0


def test_nothing_is_trending_at_first() -> None:
    assert TrendingLists().ranked() == ()


@pytest.mark.parametrize("at_us", [0, HOUR_US])
def test_an_empty_list_is_no_trouble(at_us: int) -> None:
    lists = TrendingLists()
    put(lists, 0, at_us=at_us)
    assert lists.ranked() == ()
