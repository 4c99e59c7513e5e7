"""What a member gets: filters in both tiers, which copy of a post counts, and what is said when a part is missing."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from indexer.tiers import Hits
from retriever.answer import tier_search
from retriever.answer.tier_search import TIER_MARGIN
from retriever.errors import RequestRefused, RetrieverUnavailable
from schemas.api import RetrieveResponse
from schemas.embeddings import PostEmbedding
from schemas.ids import PostId
from tests.kit.retrievers import NOW_S, RetrieverSetup, asking_member, scored_post


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    retriever = RetrieverSetup()
    yield retriever
    retriever.close()


RECENTLY = datetime.fromtimestamp(NOW_S - 100, UTC)
TWO_OF_A_KIND = [
    pytest.param({"languages": ["en", "fr"]}, {"language": "de"}, id="language"),
    pytest.param({"languages": ["en"]}, {"language": None}, id="no language"),
    pytest.param({"created_after": RECENTLY}, {"age_s": 101}, id="created before"),
    pytest.param({"created_after": RECENTLY}, {"age_s": 100}, id="created just then"),
    pytest.param({"exclude_authors": ["x", "y"]}, {"author": "y"}, id="author"),
    pytest.param({"exclude_posts": ["out"]}, {}, id="post"),
    pytest.param({}, {"author": "m"}, id="own post"),
]


@pytest.mark.parametrize("tier", ["hot", "cold", "trending"])
@pytest.mark.parametrize(("filters", "of_the_post"), TWO_OF_A_KIND)
def test_what_a_filter_leaves_out_is_in_no_answer(
    retriever: RetrieverSetup, tier: str, filters: dict[str, Any], of_the_post: dict[str, Any]
) -> None:
    place = retriever.in_hot if tier == "hot" else retriever.in_cold
    place(scored_post("out", 0.9, **of_the_post), scored_post("in", 0.5))
    retriever.in_cold(asking_member("m", empty=True) if tier == "trending" else asking_member("m"))
    retriever.trends(out=9.0, **{"in": 5.0})
    answer = retriever.ask(member_id="m", **filters)
    assert answer.post_ids == ["in"]
    assert answer.tiers == [tier]
    assert not answer.partial


@pytest.mark.parametrize("tier", ["hot", "cold", "trending"])
def test_hidden_posts_are_always_left_out_and_acted_ones_when_asked(retriever: RetrieverSetup, tier: str) -> None:
    place = retriever.in_hot if tier == "hot" else retriever.in_cold
    place(
        scored_post("hidden", 0.9),
        scored_post("liked", 0.8),
        scored_post("own", 0.7, author="m"),
        scored_post("other", 0.6),
    )
    who = asking_member("m", hidden=["hidden"], acted=["liked"])
    retriever.in_cold(asking_member("m", hidden=["hidden"], acted=["liked"], empty=True) if tier == "trending" else who)
    retriever.trends(hidden=9, liked=8, own=7, other=6)
    assert retriever.ask(member_id="m").post_ids == ["liked", "other"]
    assert retriever.ask(member_id="m", own_posts=True).post_ids == ["liked", "own", "other"]
    assert retriever.ask(member_id="m", hide_acted=True).post_ids == ["other"]


def test_own_posts_do_not_open_a_door_for_a_filter(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("own", author="m"))
    assert retriever.ask(member_id="m", own_posts=True, exclude_authors=["m"]).post_ids == []


def test_both_tiers_answer_together(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("c", 0.7), scored_post("d", 0.1))
    retriever.in_hot(scored_post("a", 0.9), scored_post("b", 0.8))
    answer = retriever.ask(member_id="m", k=3)
    assert (answer.post_ids, answer.tiers) == (["a", "b", "c"], ["hot", "hot", "cold"])
    assert answer.scores == pytest.approx([0.9, 0.8, 0.7])
    assert answer.counts == {"hot": 2, "cold": 1, "trending": 0}
    assert answer.generation == "test-0"
    assert (answer.partial, answer.reasons) == (False, [])
    assert set(answer.timings_ms) == {"member", "hot", "cold", "merge", "total"}


def test_a_text_is_a_query_too(retriever: RetrieverSetup) -> None:
    retriever.in_both(scored_post("a", 0.9), scored_post("b", 0.1))
    answer = retriever.ask(text="anything")
    assert answer.post_ids == ["a", "b"]
    assert "encode" in answer.timings_ms
    with pytest.raises(RequestRefused, match="text: there is nothing to encode"):
        retriever.ask(text="  ")


def test_a_deleted_post_is_gone_although_the_cold_tier_is_behind(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"))
    retriever.in_both(scored_post("a", 0.9), scored_post("b", 0.5))
    retriever.in_hot(scored_post("a", revision=2, deleted=True))
    assert retriever.ask(member_id="m").post_ids == ["b"]


def test_a_changed_post_counts_as_the_hot_tier_has_it(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"))
    retriever.in_both(scored_post("a", 0.9, language="en"), scored_post("b", 0.5))
    retriever.in_hot(scored_post("a", 0.1, revision=2, language="de"))
    assert retriever.ask(member_id="m").post_ids == ["b", "a"]
    assert retriever.ask(member_id="m", languages=["en"]).post_ids == ["b"], "the cold copy must not come up instead"


def test_a_newer_cold_copy_counts(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"))
    retriever.in_hot(scored_post("a", 0.1))
    retriever.in_cold(scored_post("a", 0.9, revision=2), scored_post("b", 0.5))
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, answer.tiers) == (["a", "b"], ["cold", "cold"])


def test_many_fresh_deletes_do_not_shorten_the_answer(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), *(scored_post(f"p{number:03}", 0.9 - number / 1000) for number in range(400)))
    retriever.in_hot(*(scored_post(f"p{number:03}", revision=2, deleted=True) for number in range(300)))
    assert retriever.ask(member_id="m", k=50).post_ids == [f"p{number:03}" for number in range(300, 350)]


def test_equal_scores_are_in_the_order_of_ids(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("d"), scored_post("b"))
    retriever.in_hot(scored_post("c"), scored_post("a"))
    assert retriever.ask(member_id="m").post_ids == ["a", "b", "c", "d"]


def test_an_unknown_member_gets_what_is_trending(retriever: RetrieverSetup) -> None:
    retriever.in_hot(scored_post("a"), scored_post("gone"))
    retriever.in_hot(scored_post("gone", revision=2, deleted=True))
    retriever.in_cold(scored_post("b"), scored_post("gone"))
    retriever.trends(gone=9, b=5, a=3, never_written=2)
    answer = retriever.ask(member_id="nobody")
    assert (answer.post_ids, answer.scores) == (["b", "a"], [5, 3])
    assert answer.tiers == ["trending", "trending"]
    assert answer.counts == {"hot": 0, "cold": 0, "trending": 2}
    assert (answer.partial, answer.reasons) == (False, ["member_unknown", "trending"])


def test_a_member_without_a_vector_and_a_deleted_one_get_what_is_trending(retriever: RetrieverSetup) -> None:
    retriever.in_cold(
        asking_member("bare", empty=True),
        asking_member("gone"),
        asking_member("gone", revision=2, deleted=True),
        scored_post("a"),
    )
    retriever.trends(a=1)
    assert retriever.ask(member_id="bare").reasons == ["member_without_vector", "trending"]
    assert retriever.ask(member_id="gone").reasons == ["member_unknown", "trending"]
    assert retriever.ask(member_id="gone").post_ids == ["a"]


def test_the_trending_answer_goes_down_the_list_until_it_is_full(retriever: RetrieverSetup) -> None:
    retriever.in_cold(*(scored_post(f"p{number:03}", language="en" if number >= 90 else "de") for number in range(100)))
    retriever.trends(**{f"p{number:03}": 100.0 - number for number in range(100)})
    assert retriever.ask(member_id="nobody", k=3, languages=["en"]).post_ids == ["p090", "p091", "p092"]


def test_nothing_trending_is_said(retriever: RetrieverSetup) -> None:
    answer = retriever.ask(member_id="nobody")
    assert answer.post_ids == []
    assert answer.reasons == ["member_unknown", "trending", "nothing_trending"]


def assert_partial(answer: RetrieveResponse, *patterns: str) -> None:
    assert answer.partial
    assert len(answer.reasons) == len(patterns), answer.reasons
    for reason, pattern in zip(answer.reasons, patterns, strict=True):
        assert re.match(pattern, reason), f"{reason!r} should look like {pattern!r}"


def test_without_the_cold_tier_a_text_gets_the_hot_posts(retriever: RetrieverSetup) -> None:
    retriever.in_both(scored_post("a"))
    retriever.in_cold(scored_post("b"))
    retriever.cold.fails = True
    answer = retriever.ask(text="anything")
    assert answer.post_ids == ["a"]
    assert_partial(answer, "cold_unavailable: the tier is down")


def test_without_the_hot_tier_the_cold_posts_remain(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    retriever.in_hot(scored_post("b"))
    retriever.hot.fails = True
    answer = retriever.ask(member_id="m")
    assert answer.post_ids == ["a"]
    assert_partial(answer, "hot_unavailable: the tier is down")


def test_without_the_cold_tier_a_member_seen_lately_gets_the_hot_posts(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m", hidden=["hidden"]))
    retriever.in_hot(scored_post("a"), scored_post("hidden"))
    retriever.ask(member_id="m")
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, answer.tiers) == (["a"], ["hot"])
    assert_partial(answer, "cold_unavailable")


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
        assert_partial(answer, "member_unavailable: the tier is down")


def test_a_member_seen_lately_gets_nothing_that_is_known_to_be_hidden(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m", hidden=["hidden"], empty=True))
    retriever.in_hot(scored_post("a"), scored_post("hidden"))
    retriever.trends(hidden=2, a=1)
    retriever.ask(member_id="m")
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m")
    assert (answer.post_ids, answer.tiers) == (["a"], ["trending"])
    assert_partial(answer, "member_without_vector", "trending$", "cold_unavailable")


def test_a_member_deleted_since_is_not_remembered(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"))
    retriever.ask(member_id="m")
    retriever.in_cold(asking_member("m", revision=2, deleted=True))
    retriever.ask(member_id="m")
    retriever.cold.fails = True
    assert_partial(retriever.ask(member_id="m"), "member_unavailable")


def test_without_any_tier_there_is_no_answer(retriever: RetrieverSetup) -> None:
    retriever.cold.fails = retriever.hot.fails = True
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(text="anything")


def test_a_hot_tier_that_has_not_caught_up_makes_an_answer_partial(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a"))
    retriever.hot_problem = "5 records to go"
    answer = retriever.ask(member_id="m")
    assert answer.post_ids == ["a"]
    assert_partial(answer, "hot_incomplete: 5 records to go")
    assert retriever.under_test.problems() == ["5 records to go"]


def test_while_the_model_warms_up_a_text_gets_what_is_trending() -> None:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.1))
    retriever.trends(b=1)
    try:
        answer = retriever.ask(text="anything")
        assert answer.post_ids == ["b"]
        assert_partial(answer, "model_unavailable: the model is still warming up", "trending$")
        assert retriever.ask(member_id="m").post_ids == ["a", "b"], "a member's vector needs no model"
        assert retriever.under_test.problems() == ["the model is still warming up"]
        retriever.warm_up()
        assert retriever.ask(text="anything").post_ids == ["a", "b"]
        assert retriever.under_test.problems() == []
    finally:
        retriever.close()


def test_one_post_as_each_tier_holds_it(retriever: RetrieverSetup) -> None:
    retriever.in_cold(scored_post("a", revision=3))
    retriever.in_hot(scored_post("a", revision=4, deleted=True))
    response = retriever.under_test.post(PostId("a"))
    assert (response.cold.present, response.cold.revision, response.cold.deleted) == (True, 3, False)
    assert response.cold.created_at is not None
    assert response.cold.created_at.timestamp() == NOW_S - 60
    assert (response.hot.present, response.hot.revision, response.hot.deleted) == (True, 4, True)
    assert not retriever.under_test.post(PostId("b")).cold.present
    retriever.cold.fails = True
    with pytest.raises(RetrieverUnavailable, match="the tier is down"):
        retriever.under_test.post(PostId("a"))


CAME_IN_MEANWHILE = [
    pytest.param([], [scored_post("a", 0.9)], [("a", 0.9, "cold"), ("b", 0.5, "cold")], id="the same revision"),
    pytest.param(
        [],
        [scored_post("a", 0.25, revision=2)],
        [("b", 0.5, "cold"), ("a", 0.25, "hot")],
        id="a newer revision, scored again",
    ),
    pytest.param([], [scored_post("a", revision=2, deleted=True)], [("b", 0.5, "cold")], id="a delete"),
    pytest.param(
        [], [scored_post("a", 0.9, revision=2, language="de")], [("b", 0.5, "cold")], id="one that fails a filter"
    ),
    pytest.param(
        [scored_post("a", 0.9, revision=1), scored_post("h", 0.75)],
        [scored_post("a", 0.25, revision=3)],
        [("h", 0.75, "hot"), ("b", 0.5, "cold"), ("a", 0.25, "hot")],
        id="newer than both lists",
    ),
    pytest.param(
        [scored_post("a", 0.9)], [scored_post("a", revision=3, deleted=True)], [("b", 0.5, "cold")], id="a hit's delete"
    ),
]


def they_come_after_the_search(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch, meanwhile: Sequence[PostEmbedding]
) -> None:
    ask = retriever.hot.tier.search

    def search_before_they_come(*query: Any) -> Hits:
        hits: Hits = ask(*query)
        retriever.in_hot(*meanwhile)
        return hits

    monkeypatch.setattr(retriever.hot.tier, "search", search_before_they_come)


@pytest.mark.parametrize(("before", "meanwhile", "answered"), CAME_IN_MEANWHILE)
def test_a_post_that_the_hot_tier_gets_after_its_search_is_answered_as_it_is_then(
    retriever: RetrieverSetup,
    monkeypatch: pytest.MonkeyPatch,
    before: list[PostEmbedding],
    meanwhile: list[PostEmbedding],
    answered: list[tuple[str, float, str]],
) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9, revision=1 if not before else 2), scored_post("b", 0.5))
    retriever.in_hot(*before)
    they_come_after_the_search(retriever, monkeypatch, meanwhile)
    answer = retriever.ask(member_id="m", languages=["en"])
    assert list(zip(answer.post_ids, answer.scores, answer.tiers, strict=True)) == [
        (post_id, pytest.approx(score), tier) for post_id, score, tier in answered
    ]


@pytest.mark.parametrize("margin", [0, TIER_MARGIN])
def test_the_next_hot_post_takes_the_place_of_one_deleted_meanwhile(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch, margin: int
) -> None:
    """Not one of the cold tier that is worse than it; also where the hot tier must be asked again for it."""
    monkeypatch.setattr(tier_search, "TIER_MARGIN", margin)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.5))
    retriever.in_hot(scored_post("a", 0.9), scored_post("h", 0.8))
    they_come_after_the_search(retriever, monkeypatch, [scored_post("a", revision=2, deleted=True)])
    answer = retriever.ask(member_id="m", k=1)
    assert (answer.post_ids, answer.tiers, answer.partial) == (["h"], ["hot"], False)
