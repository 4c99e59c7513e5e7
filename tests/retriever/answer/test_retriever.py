"""What a question is answered with: filters in both tiers, and which copy of a post counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from indexer.id_table import KEPT_S, UNKNOWN, IdTable
from indexer.tiers import HotAnswer, HotQuery
from retriever.answer import nearest_search
from retriever.answer.nearest_search import COLD_MARGIN
from retriever.answer.question import Question
from retriever.errors import RequestRefused, RetrieverUnavailable
from schemas.canaries import CANARY_AUTHOR
from schemas.embeddings import PostEmbedding
from schemas.ids import Generation, Micros, PostId
from tests.kit.data.embeddings import DIMENSION, GENERATION, NOW
from tests.kit.retrievers import (
    NOW_S,
    QUERY,
    QueryModel,
    RetrieverSetup,
    asking_member,
    codes_of,
    scored_post,
    tiers_of,
    vector_with,
)

RECENTLY = Micros(NOW - 100_000_000)
TWO_OF_A_KIND = [
    pytest.param({"languages": ["en", "fr"]}, {"language": "de"}, id="language"),
    pytest.param({"languages": ["en"]}, {"language": None}, id="no language"),
    pytest.param({"created_after_us": RECENTLY}, {"age_s": 101}, id="created before"),
    pytest.param({"created_after_us": RECENTLY}, {"age_s": 100}, id="created just then"),
    pytest.param({"created_before_us": NOW}, {"age_s": -1}, id="created after"),
    pytest.param({"exclude_authors": ["x", "y"]}, {"author": "y"}, id="author"),
    pytest.param({"exclude_posts": ["out"]}, {}, id="post"),
    pytest.param({"only_authors": ["author"]}, {"author": "y"}, id="not one of these authors"),
    pytest.param({"only_posts": ["in"]}, {}, id="not one of these posts"),
    pytest.param({}, {"author": "m"}, id="own post"),
]


@pytest.mark.parametrize("tier", ["hot", "cold", "trending hot", "trending cold"])
@pytest.mark.parametrize(("filters", "of_the_post"), TWO_OF_A_KIND)
def test_what_a_filter_leaves_out_is_in_no_answer(
    retriever: RetrieverSetup, tier: str, filters: dict[str, Any], of_the_post: dict[str, Any]
) -> None:
    place = retriever.in_hot if tier.endswith("hot") else retriever.in_cold
    place(scored_post("out", 0.9, **of_the_post), scored_post("in", 0.5))
    trending = tier.startswith("trending")
    retriever.in_cold(asking_member("m", empty=True) if trending else asking_member("m"))
    retriever.trends(out=9.0, **{"in": 5.0})
    answer = retriever.ask(member_id="m", **filters)
    assert answer.post_ids == ["in"]
    assert tiers_of(answer) == [tier.partition(" ")[0]]
    assert not answer.partial


@pytest.mark.parametrize("tier", ["hot", "cold"])
def test_canaries_are_in_no_answer_but_that_to_their_own_question(retriever: RetrieverSetup, tier: str) -> None:
    place = retriever.in_hot if tier == "hot" else retriever.in_cold
    place(scored_post("canary", 0.9, author=CANARY_AUTHOR), scored_post("in", 0.5))
    retriever.in_cold(asking_member("m"), asking_member("empty", empty=True))
    retriever.trends(canary=9.0, **{"in": 5.0})
    questions: list[dict[str, Any]] = [
        {"member_id": "m"},
        {"member_id": "m", "own_posts": True},
        {"member_id": "empty", "own_posts": True},
        {"text": "words"},
        {"vector_D": QUERY},
        {"post_ids": ("in",), "only_authors": ["author", CANARY_AUTHOR]},
    ]
    for question in questions:
        assert "canary" not in retriever.ask(**question).post_ids, question
    assert retriever.ask(member_id="m", only_authors=[CANARY_AUTHOR]).post_ids == []
    assert retriever.ask(text="words", only_authors=[CANARY_AUTHOR]).post_ids == ["canary"]


@pytest.mark.parametrize("tier", ["hot", "cold", "trending hot", "trending cold"])
def test_hidden_posts_are_always_left_out_and_acted_and_seen_ones_when_asked(
    retriever: RetrieverSetup, tier: str
) -> None:
    place = retriever.in_hot if tier.endswith("hot") else retriever.in_cold
    place(
        scored_post("hidden", 0.9),
        scored_post("liked", 0.8),
        scored_post("own", 0.7, author="m"),
        scored_post("seen", 0.65),
        scored_post("other", 0.6),
    )
    lists = {"hidden": ["hidden"], "acted": ["liked"], "seen": ["seen"]}
    retriever.in_cold(asking_member("m", empty=tier.startswith("trending"), **lists))
    retriever.trends(hidden=9, liked=8, own=7, seen=6.5, other=6)
    assert retriever.ask(member_id="m").post_ids == ["liked", "seen", "other"]
    assert retriever.ask(member_id="m", own_posts=True).post_ids == ["liked", "own", "seen", "other"]
    assert retriever.ask(member_id="m", hide_acted=True).post_ids == ["seen", "other"]
    assert retriever.ask(member_id="m", hide_seen=True).post_ids == ["liked", "other"]


def test_own_posts_do_not_open_a_door_for_a_filter(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("own", author="m"))
    assert retriever.ask(member_id="m", own_posts=True, exclude_authors=["m"]).post_ids == []


def test_both_tiers_answer_together(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("c", 0.7), scored_post("d", 0.1))
    retriever.in_hot(scored_post("a", 0.9), scored_post("b", 0.8))
    answer = retriever.ask(member_id="m", k=3)
    assert (answer.post_ids, tiers_of(answer)) == (["a", "b", "c"], ["hot", "hot", "cold"])
    assert answer.scores_C.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert answer.counts == {"hot": 2, "cold": 1, "trending": 0}
    assert answer.generation == "test-0"
    assert (answer.partial, answer.reasons) == (False, [])
    assert set(answer.timings_ms) == {"member", "hot", "cold", "merge", "total"}


def test_a_text_and_a_vector_are_queries_too(retriever: RetrieverSetup) -> None:
    retriever.in_both(scored_post("a", 0.9), scored_post("b", 0.1))
    answer = retriever.ask(text="anything")
    assert answer.post_ids == ["a", "b"]
    assert "encode" in answer.timings_ms
    assert retriever.ask(vector_D=QUERY).post_ids == ["a", "b"]
    with pytest.raises(RequestRefused, match="text: there is nothing to encode"):
        retriever.ask(text="  ")
    with pytest.raises(RequestRefused, match=f"vector: it has 3 numbers; .* have {DIMENSION}"):
        retriever.ask(vector_D=np.ones(3, np.float32))


def test_another_generation_is_refused(retriever: RetrieverSetup) -> None:
    retriever.in_both(scored_post("a", 0.9))
    assert retriever.ask(text="anything", generation=GENERATION).post_ids == ["a"]
    with pytest.raises(RequestRefused, match="generation: other-1 is not served; "):
        retriever.ask(text="anything", generation=Generation("other-1"))


def test_similar_posts_are_nearest_to_the_mean_and_do_not_hold_the_posts_themselves(retriever: RetrieverSetup) -> None:
    retriever.in_cold(scored_post("a", 0.0), scored_post("b", 1.0), scored_post("c", 0.7), scored_post("d", 0.1))
    retriever.in_hot(scored_post("b", 1.0), scored_post("e", 0.6))
    answer = retriever.ask(post_ids=(PostId("a"), PostId("b")))
    assert answer.post_ids == ["c", "e", "d"]
    both = (vector_with(0.0) + vector_with(1.0)) / np.sqrt(2)
    assert answer.scores_C[0] == pytest.approx(float(both @ vector_with(0.7)), abs=1e-6)
    assert answer.reasons == []
    answer = retriever.ask(post_ids=(PostId("b"), PostId("unknown")))
    assert (answer.post_ids[0], codes_of(answer), answer.partial) == ("c", ["posts_unknown"], False)


def test_similar_posts_need_one_that_is_known(retriever: RetrieverSetup) -> None:
    retriever.in_cold(scored_post("gone", deleted=True))
    with pytest.raises(RequestRefused, match="post_ids: none of these posts is known"):
        retriever.ask(post_ids=(PostId("never"), PostId("gone")))
    retriever.cold.fails = True
    with pytest.raises(RetrieverUnavailable, match="cannot be looked up"):
        retriever.ask(post_ids=(PostId("never"),))


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
    answer = retriever.ask(member_id="m", columns=frozenset({"revision"}))
    assert (answer.post_ids, tiers_of(answer)) == (["a", "b"], ["cold", "cold"])
    assert answer.revisions == [2, 1]


def test_many_fresh_deletes_do_not_shorten_the_answer(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"), *(scored_post(f"p{number:03}", 0.9 - number / 1000) for number in range(400)))
    retriever.ask(member_id="m", k=50)
    retriever.in_hot(*(scored_post(f"p{number:03}", revision=2, deleted=True) for number in range(300)))
    for _ in range(2):
        answer = retriever.ask(member_id="m", k=50)
        assert answer.post_ids == [f"p{number:03}" for number in range(300, 350)]
        assert not answer.partial


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
    assert (answer.post_ids, answer.scores_C.tolist()) == (["b", "a"], [5, 3])
    assert tiers_of(answer) == ["trending", "trending"]
    assert answer.counts == {"hot": 0, "cold": 0, "trending": 2}
    assert not answer.partial
    assert codes_of(answer) == ["member_unknown", "trending"]


def test_a_member_without_a_vector_and_a_deleted_one_get_what_is_trending(retriever: RetrieverSetup) -> None:
    retriever.in_cold(
        asking_member("bare", empty=True),
        asking_member("gone"),
        asking_member("gone", revision=2, deleted=True),
        scored_post("a"),
    )
    retriever.trends(a=1)
    assert codes_of(retriever.ask(member_id="bare")) == ["member_without_vector", "trending"]
    assert codes_of(retriever.ask(member_id="gone")) == ["member_unknown", "trending"]
    assert retriever.ask(member_id="gone").post_ids == ["a"]


def test_all_questions_of_a_batch_are_answered_in_their_order(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m", hidden=["a"]), asking_member("bare", empty=True), scored_post("a", 0.9))
    retriever.in_hot(scored_post("b", 0.5))
    retriever.trends(a=1)
    names = ["m", "bare", "nobody", "m"]
    questions = [Question(member_id=name, timeout_s=30.0) for name in names] + [
        Question(vector_D=QUERY, timeout_s=30.0)
    ]
    answers = retriever.under_test.answer_batch(questions)
    assert [answer.post_ids for answer in answers] == [["b"], ["a"], ["a"], ["b"], ["a", "b"]]
    assert codes_of(answers[1]) == ["member_without_vector", "trending"]


def test_the_columns_that_are_asked_for(retriever: RetrieverSetup) -> None:
    retriever.in_cold(scored_post("a", 0.9, revision=3, author="x", language=None, age_s=50))
    retriever.in_hot(scored_post("b", 0.8, revision=4, author="y", language="de"))
    plain = retriever.ask(text="anything")
    assert (plain.authors, plain.created_at_us, plain.revisions, plain.languages) == (None, None, None, None)
    answer = retriever.ask(text="anything", columns=frozenset({"author", "created_at", "revision", "language"}))
    assert answer.authors == ["x", "y"]
    assert answer.created_at_us == [NOW - 50_000_000, NOW - 60_000_000]
    assert answer.revisions == [3, 4]
    assert answer.languages == [None, "de"]


def test_vectors_of_posts_come_from_the_tier_that_holds_them(retriever: RetrieverSetup) -> None:
    retriever.in_cold(scored_post("a", 0.9), scored_post("b", 0.1), scored_post("gone", revision=5, deleted=True))
    retriever.in_hot(scored_post("b", 0.8, revision=2))
    ids = [PostId(name) for name in ("b", "never", "a", "gone")]
    vectors = retriever.under_test.vectors(ids)
    assert (vectors.generation, vectors.post_ids, vectors.revisions) == (GENERATION, ids, [2, 0, 1, 0])
    assert (vectors.partial, vectors.reasons) == (False, [])
    none = np.zeros(DIMENSION)
    np.testing.assert_allclose(vectors.vectors_CD, [vector_with(0.8), none, vector_with(0.9), none], atol=1e-6)
    retriever.cold.fails = True
    assert retriever.under_test.vectors(ids[:1]).revisions == [2]
    with pytest.raises(RetrieverUnavailable, match="the cold tier cannot answer now"):
        retriever.under_test.vectors(ids)


def test_what_nobody_asks_for_is_forgotten_in_time() -> None:
    now_s = 100.0
    retriever = RetrieverSetup(forget_after_s=10.0, clock=lambda: now_s)
    retriever.in_cold(scored_post("a"))
    retriever.ask(text="anything")
    model = retriever.encoder._encoder
    assert isinstance(model, QueryModel)
    now_s = 109.0
    retriever.under_test.tidy()
    assert (len(retriever.under_test.kept), model.forgot_after_s) == (1, 10.0)
    now_s = 111.0
    retriever.under_test.tidy()
    assert len(retriever.under_test.kept) == 0
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
    with pytest.raises(RetrieverUnavailable, match="a tier cannot answer now"):
        retriever.under_test.post(PostId("a"))


CAME_IN_MEANWHILE = [
    pytest.param([scored_post("a", 0.9)], [("a", 0.9, "hot"), ("b", 0.5, "cold")], id="the same revision"),
    pytest.param([scored_post("a", 0.25, revision=2)], [("b", 0.5, "cold"), ("a", 0.25, "hot")], id="a newer revision"),
    pytest.param([scored_post("a", revision=2, deleted=True)], [("b", 0.5, "cold")], id="a delete"),
    pytest.param(
        [scored_post("a", 0.9, revision=2, language="de")], [("b", 0.5, "cold")], id="one that fails a filter"
    ),
]


@pytest.mark.parametrize(("meanwhile", "answered"), CAME_IN_MEANWHILE)
def test_a_post_that_comes_in_after_the_cold_search_is_answered_as_it_is_then(
    retriever: RetrieverSetup,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Sequence[PostEmbedding],
    answered: list[tuple[str, float, str]],
) -> None:
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("b", 0.5))
    ask = retriever.hot.tier.search

    def they_come_before_the_search(queries: Sequence[HotQuery]) -> list[HotAnswer]:
        retriever.in_hot(*meanwhile)
        answers: list[HotAnswer] = ask(queries)
        return answers

    monkeypatch.setattr(retriever.hot.tier, "search", they_come_before_the_search)
    answer = retriever.ask(member_id="m", languages=["en"])
    assert list(zip(answer.post_ids, answer.scores_C, tiers_of(answer), strict=True)) == [
        (post_id, pytest.approx(score), tier) for post_id, score, tier in answered
    ]


@pytest.mark.parametrize("margin", [0, COLD_MARGIN])
def test_the_next_post_takes_the_place_of_one_that_the_cold_tier_has_in_a_newer_revision(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch, margin: int
) -> None:
    """Also where the hot tier must be asked again for it."""
    monkeypatch.setattr(nearest_search, "HOT_MARGIN", margin)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.1, revision=2))
    retriever.in_hot(scored_post("a", 0.9), scored_post("h", 0.8))
    answer = retriever.ask(member_id="m", k=1)
    assert (answer.post_ids, tiers_of(answer), answer.partial) == (["h"], ["hot"], False)


@pytest.mark.parametrize("member_id", ["m", "nobody"])
def test_a_retriever_that_is_closed_gives_the_ids_of_its_kept_answers_back(member_id: str) -> None:
    """The table stays: other generations of the process use it."""
    now_s = [100.0]
    ids = IdTable(lambda: now_s[0])
    closed = RetrieverSetup(ids=ids)
    closed.in_cold(asking_member("m"), *(scored_post(f"c{number}") for number in range(5)))
    closed.trends(**{f"c{number}": 9 - number for number in range(5)})
    assert closed.ask(member_id=member_id).post_ids == [f"c{number}" for number in range(5)]
    assert UNKNOWN not in ids.find(["c0", "c4"])
    closed.close()
    for _ in range(4):
        now_s[0] += KEPT_S + 2
        ids.release(ids.intern([PostId("of somebody else")]))
    assert ids.find(["c0", "c4"]).tolist() == [UNKNOWN, UNKNOWN]
