"""What is answered, and what is said, when a tier, the feed, the index, the member or the model is missing."""

import re
from collections.abc import Sequence

import pytest

from indexer.tiers import HotAnswer, HotQuery
from retriever.answer import nearest_search
from retriever.answer.question import Answer
from retriever.answer.trending_posts import ASK_ANEW_S
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Code, Reason
from schemas.ids import Offset, PostId
from tests.kit.retrievers import (
    PARTITION,
    RetrieverSetup,
    asking_member,
    codes_of,
    scored_post,
    tiers_of,
)


def assert_partial(answer: Answer, *codes_and_patterns: str) -> None:
    assert answer.partial
    codes, patterns = codes_and_patterns[::2], codes_and_patterns[1::2]
    assert codes_of(answer) == list(codes)
    for reason, pattern in zip(answer.reasons, patterns, strict=True):
        assert re.match(pattern, reason.detail), f"{reason!r} should look like {pattern!r}"


COLD_IS_DOWN = (Code.COLD_UNAVAILABLE, "the cold tier cannot answer now$")


def test_without_the_cold_tier_a_text_gets_the_hot_posts(retriever: RetrieverSetup) -> None:
    retriever.in_both(scored_post("a"))
    retriever.in_cold(scored_post("b"))
    retriever.cold.fails = True
    answer = retriever.ask(text="anything")
    assert answer.post_ids == ["a"]
    assert_partial(answer, *COLD_IS_DOWN)


def test_without_the_hot_tier_the_cold_posts_remain(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    retriever.in_hot(scored_post("b"))
    retriever.hot.fails = True
    answer = retriever.ask(member_id="m")
    assert answer.post_ids == ["a"]
    assert_partial(answer, Code.HOT_UNAVAILABLE, "the hot tier cannot answer now$")


def test_without_the_hot_tier_no_kept_answer_shows_what_is_gone(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"), scored_post("b"))
    assert retriever.ask(member_id="m").post_ids == ["a", "b"]
    retriever.in_both(scored_post("a", revision=2, deleted=True))
    retriever.hot.fails = "search"
    answer = retriever.ask(member_id="m")
    assert answer.post_ids == ["b"]
    assert answer.partial


def test_without_the_cold_tier_a_member_in_the_store_gets_the_hot_posts(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m", hidden=["hidden"]))
    retriever.in_hot(scored_post("a"), scored_post("hidden"))
    retriever.in_member_feed(asking_member("m", hidden=["hidden"]))
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, tiers_of(answer)) == (["a"], ["hot"])
    assert_partial(answer, *COLD_IS_DOWN)


def test_without_the_cold_tier_a_kept_answer_is_whole(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.5))
    retriever.ask(member_id="m")
    retriever.in_hot(scored_post("a", 0.1, revision=2))
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, answer.partial) == (["b", "a"], False)


@pytest.mark.parametrize("failing", [True, "members"])
def test_a_member_that_cannot_be_read_gets_nothing_that_may_be_hidden(
    retriever: RetrieverSetup, failing: bool | str
) -> None:
    retriever.in_cold(asking_member("m", hidden=["hidden"], acted=["liked"]))
    retriever.in_hot(scored_post("hidden"), scored_post("liked"), scored_post("own", author="m"))
    retriever.trends(hidden=3, liked=2, own=1)
    retriever.cold.fails = failing
    for options in ({}, {"hide_acted": True}):
        answer = retriever.ask(member_id="m", **options)
        assert (answer.post_ids, answer.counts) == ([], {"hot": 0, "cold": 0, "trending": 0})
        assert_partial(answer, Code.MEMBER_UNAVAILABLE, "the member cannot be looked up now")


def test_a_member_whom_the_store_dropped_before_it_was_indexed_gets_nothing_that_may_be_hidden(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever.in_hot(scored_post("hidden"))
    retriever.trends(hidden=1)
    retriever.members.begin({PARTITION: Offset(5)})
    monkeypatch.setattr(retriever.members, "_indexed", lambda: {PARTITION: Offset(4)})
    answer = retriever.ask(member_id="m")
    assert answer.post_ids == []
    assert_partial(answer, Code.MEMBER_UNAVAILABLE, "the member cannot be looked up now")
    monkeypatch.setattr(retriever.members, "_indexed", lambda: {PARTITION: Offset(5)})
    assert codes_of(retriever.ask(member_id="m")) == [Code.MEMBER_UNKNOWN, Code.TRENDING]


def test_a_member_in_the_store_gets_nothing_that_is_known_to_be_hidden(retriever: RetrieverSetup) -> None:
    retriever.in_hot(scored_post("a"), scored_post("hidden"))
    retriever.in_member_feed(asking_member("m", hidden=["hidden"], empty=True))
    retriever.trends(hidden=2, a=1)
    retriever.feed_problem = BEHIND
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, tiers_of(answer)) == (["a"], ["trending"])
    assert set(codes_of(answer)) == {"member_without_vector", "trending", "cold_unavailable", "hot_behind"}
    assert answer.partial


def test_a_member_deleted_since_is_not_remembered(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    assert retriever.ask(member_id="m").post_ids == ["a"]
    retriever.in_member_feed(asking_member("m", revision=2, deleted=True))
    assert codes_of(retriever.ask(member_id="m")) == ["member_unknown", "trending", "nothing_trending"]


def test_a_changed_member_gets_what_is_near_now(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.1))
    assert retriever.ask(member_id="m").post_ids == ["a", "b"]
    retriever.in_member_feed(asking_member("m", revision=2, hidden=["a"]))
    assert retriever.ask(member_id="m").post_ids == ["b"]


def test_without_any_tier_there_is_no_answer(retriever: RetrieverSetup) -> None:
    retriever.trends(a=1)
    retriever.in_cold(asking_member("bare", empty=True))
    retriever.ask(member_id="bare")
    retriever.cold.fails = retriever.hot.fails = True
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(text="anything")
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(member_id="bare")


BEHIND = Reason(Code.HOT_BEHIND, "the feed has not reached the end for 20 s")


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_a_feed_that_does_not_follow_makes_an_answer_partial(retriever: RetrieverSetup, member_id: str) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    retriever.trends(a=1)
    retriever.feed_problem = BEHIND
    answer = retriever.ask(member_id=member_id)
    assert answer.post_ids == ["a"]
    assert answer.partial
    assert BEHIND in answer.reasons
    assert retriever.under_test.problems() == [BEHIND.detail]


@pytest.mark.parametrize("problem", ["the feed", "the index"])
def test_a_post_that_is_perhaps_not_read_yet_is_not_called_unknown(retriever: RetrieverSetup, problem: str) -> None:
    """Whoever asks would not ask again."""
    retriever.in_cold(scored_post("old"), scored_post("near"))
    retriever.in_hot(scored_post("a"))
    if problem == "the feed":
        retriever.feed_problem = BEHIND
        sentence = BEHIND.detail
    else:
        retriever.cold.tier.reached({PARTITION: Offset(0)})
        retriever.under_test.tidy()
        sentence = "in 1 of 1 partitions the hot tier begins after what the cold tier has written"
    with pytest.raises(RetrieverUnavailable, match="cannot be looked up now"):
        retriever.ask(post_ids=(PostId("new"),))
    with pytest.raises(RetrieverUnavailable, match=f"{sentence}; try again"):
        retriever.under_test.vectors([PostId("a"), PostId("old"), PostId("new")])
    for ids in (["a"], ["a", "old"]):
        vectors = retriever.under_test.vectors([PostId(post_id) for post_id in ids])
        assert vectors.revisions == [1] * len(ids)
        assert [reason.detail for reason in vectors.reasons] == [sentence], "they may have changed since"
    answer = retriever.ask(post_ids=(PostId("a"), PostId("new")))
    assert (set(answer.post_ids), answer.partial) == ({"old", "near"}, True)


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_a_hot_tier_that_begins_after_the_cold_one_ends_makes_an_answer_partial(
    retriever: RetrieverSetup, member_id: str
) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    retriever.trends(a=1)
    retriever.cold.tier.reached({PARTITION: Offset(5)})
    retriever.hot.tier.begin({PARTITION: Offset(6)})
    retriever.under_test.tidy()
    answer = retriever.ask(member_id=member_id)
    assert (answer.post_ids, answer.partial) == (["a"], True)
    assert Code.COLD_BEHIND in codes_of(answer)
    assert retriever.under_test.problems() == [
        "in 1 of 1 partitions the hot tier begins after what the cold tier has written"
    ]
    retriever.cold.tier.reached({PARTITION: Offset(6)})
    retriever.under_test.tidy()
    assert not retriever.ask(member_id=member_id).partial
    assert retriever.under_test.problems() == []


def test_a_kept_answer_is_asked_anew_when_the_hot_tier_has_forgotten_what_came_after_it(
    retriever: RetrieverSetup,
) -> None:
    retriever.cold.tier.reached({PARTITION: Offset(1)})
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.5))
    retriever.ask(member_id="m")
    retriever.in_both(scored_post("a", 0.1, revision=2))
    retriever.cold.tier.reached({PARTITION: Offset(2)})
    retriever.hot.tier.begin({PARTITION: Offset(2)})
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, tiers_of(answer), answer.partial) == (["b", "a"], ["cold", "cold"], False)


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_what_was_asked_of_a_log_that_is_gone_is_not_used_with_the_next_one(
    retriever: RetrieverSetup, member_id: str
) -> None:
    """The offsets of the new log are below those of the old one, so by them alone the kept answer would be exact."""
    retriever.in_cold(asking_member("m"), scored_post("old", 0.9))
    retriever.trends(old=3, new=2, newest=1)
    assert retriever.ask(member_id=member_id).post_ids == ["old"]
    retriever.hot.tier.begin({PARTITION: Offset(2**62)})
    retriever.hot.tier.begin({PARTITION: Offset(1)})
    retriever.under_test.forget_kept()
    retriever.in_both(scored_post("new", 0.8), scored_post("newest", 0.7))
    retriever.cold.tier.reached({PARTITION: Offset(2)})
    retriever.hot.tier.begin({PARTITION: Offset(2)})
    answer = retriever.ask(member_id=member_id)
    assert (answer.post_ids, answer.partial) == (["old", "new", "newest"], False)


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_what_the_hot_tier_forgets_after_a_kept_answer_was_found_is_asked_anew(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch, member_id: str
) -> None:
    retriever.cold.tier.reached({PARTITION: Offset(1)})
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.5))
    retriever.trends(a=2, b=1)
    assert retriever.ask(member_id=member_id).post_ids == ["a", "b"]
    retriever.in_both(scored_post("a", revision=2, deleted=True))
    search = retriever.hot.tier.search

    def it_forgets_first(queries: Sequence[HotQuery]) -> list[HotAnswer]:
        retriever.cold.tier.reached({PARTITION: Offset(2)})
        retriever.hot.tier.begin({PARTITION: Offset(2)})
        answers: list[HotAnswer] = search(queries)
        return answers

    monkeypatch.setattr(retriever.hot.tier, "search", it_forgets_first)
    answer = retriever.ask(member_id=member_id)
    assert (answer.post_ids, answer.partial) == (["b"], False)


def test_of_a_trending_post_the_newer_copy_counts_whichever_tier_holds_it(retriever: RetrieverSetup) -> None:
    retriever.in_hot(scored_post("a"), scored_post("b", revision=2))
    retriever.in_cold(scored_post("a", revision=2, deleted=True), scored_post("b", deleted=True))
    retriever.trends(a=2, b=1)
    assert retriever.ask(member_id="nobody").post_ids == ["b"]


def test_while_the_index_is_behind_it_is_asked_about_trending_posts_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    retriever = RetrieverSetup(clock=lambda: now_s)
    posts, asked = retriever.cold.tier.posts, []
    monkeypatch.setattr(retriever.cold.tier, "posts", lambda ids, **rest: asked.append(ids) or posts(ids, **rest))
    retriever.in_cold(scored_post("a"))
    retriever.trends(a=1)
    retriever.cold.tier.reached({PARTITION: Offset(5)})
    retriever.hot.tier.begin({PARTITION: Offset(7)})
    for _ in range(5):
        answer = retriever.ask(member_id="nobody")
        assert (answer.post_ids, answer.partial, len(asked)) == (["a"], True, 1)
    retriever.in_cold(scored_post("a", revision=2, deleted=True))
    now_s += ASK_ANEW_S
    for _ in range(5):
        assert (retriever.ask(member_id="nobody").post_ids, len(asked)) == ([], 2)
    retriever.cold.tier.reached({PARTITION: Offset(6)})
    for _ in range(5):
        assert (retriever.ask(member_id="nobody").partial, len(asked)) == (True, 3), "its position has moved"
    retriever.close()


def test_what_is_known_of_trending_posts_is_as_old_as_its_oldest_part(retriever: RetrieverSetup) -> None:
    """A list changes, and only its new posts are asked of the cold tier."""
    retriever.cold.tier.reached({PARTITION: Offset(1)})
    retriever.in_cold(scored_post("a"), scored_post("b"))
    retriever.trends(a=2)
    assert retriever.ask(member_id="nobody").post_ids == ["a"]
    retriever.in_both(scored_post("a", revision=2, deleted=True))
    retriever.cold.tier.reached({PARTITION: Offset(2)})
    retriever.trends(a=2, b=1)
    assert retriever.ask(member_id="nobody").post_ids == ["b"], "the hot tier knows of the delete"
    retriever.hot.tier.begin({PARTITION: Offset(2)})
    answer = retriever.ask(member_id="nobody")
    assert (answer.post_ids, answer.partial) == (["b"], False)


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_a_hot_tier_from_the_very_beginning_needs_no_cold_one(retriever: RetrieverSetup, member_id: str) -> None:
    retriever.hot.tier.begin({PARTITION: Offset(0)})
    retriever.members.begin({PARTITION: Offset(0)})
    retriever.in_member_feed(asking_member("m"))
    retriever.in_hot(scored_post("a", 0.9))
    retriever.trends(a=1, never=2)
    retriever.cold.fails = True
    answer = retriever.ask(member_id=member_id, columns=frozenset({"author"}))
    assert (answer.post_ids, answer.partial) == (["a"], False)
    assert retriever.under_test.vectors([PostId("never")]).revisions == [0]
    assert retriever.cold.failures == 0


def test_while_it_catches_up_from_the_beginning_the_cold_tier_is_asked(retriever: RetrieverSetup) -> None:
    retriever.hot.tier.begin({PARTITION: Offset(0)})
    retriever.feed_problem = Reason(Code.HOT_CATCHING_UP, "the hot tier is catching up, 5 records to go")
    retriever.in_cold(scored_post("a", 0.9))
    answer = retriever.ask(text="anything")
    assert (answer.post_ids, tiers_of(answer)) == (["a"], ["cold"])
    assert_partial(answer, Code.HOT_CATCHING_UP, "the hot tier is catching up")


def test_while_the_model_warms_up_a_text_gets_what_is_trending() -> None:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.1))
    retriever.trends(b=1)
    try:
        answer = retriever.ask(text="anything")
        assert answer.post_ids == ["b"]
        assert_partial(answer, Code.MODEL_UNAVAILABLE, "the model is still warming up", Code.TRENDING, "")
        assert retriever.ask(member_id="m").post_ids == ["a", "b"], "a member's vector needs no model"
        assert retriever.under_test.problems() == ["the model is still warming up"]
        retriever.warm_up()
        assert retriever.ask(text="anything").post_ids == ["a", "b"]
        assert retriever.under_test.problems() == []
    finally:
        retriever.close()


def test_it_is_not_ready_before_the_cold_tier_has_said_its_position(retriever: RetrieverSetup) -> None:
    retriever.cold.fails = True
    retriever.under_test.tidy()
    assert retriever.under_test.problems() == [], "what it said before is still true"
    retriever.under_test._position = None
    assert retriever.under_test.problems() == ["the cold tier has not said yet how far it has written"]


def test_when_even_the_longest_cold_answer_is_used_up_it_is_said(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_search, "MAX_LIMIT", 100)
    retriever.in_cold(asking_member("m"), *(scored_post(f"p{number:03}", 0.9 - number / 1000) for number in range(120)))
    retriever.in_hot(*(scored_post(f"p{number:03}", revision=2, deleted=True) for number in range(60)))
    assert not retriever.ask(member_id="m", k=40).partial
    answer = retriever.ask(member_id="m", k=50)
    assert_partial(answer, Code.COLD_BEHIND, "so many posts have changed")
