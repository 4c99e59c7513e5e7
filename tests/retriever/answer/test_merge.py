"""Which copy of a post counts, and when a tier has to be asked for more."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexer.tiers import HotAnswer, Numbers
from retriever.answer.merge import COLD, HOT, NOT_HELD, ColdColumns, Merged, merge, without_hot
from schemas.ids import PostId

POSTS = "abcdefghij"


class Copy(NamedTuple):
    post_id: str
    score: float
    revision: int = 1


def ids_of(numbers: Numbers) -> list[PostId]:
    return [PostId(POSTS[number]) for number in numbers]


def ranked(copies: tuple[Copy, ...]) -> tuple[Numbers, np.ndarray, np.ndarray]:
    copies = tuple(sorted(copies, key=lambda copy: (-copy.score, copy.post_id)))
    return (
        np.array([POSTS.index(copy.post_id) for copy in copies], np.int32),
        np.array([copy.score for copy in copies], np.float32),
        np.array([copy.revision for copy in copies], np.int64),
    )


def cold_hits(*copies: Copy, limit: int = 100) -> ColdColumns:
    return ColdColumns(*ranked(copies), limit)


def hot_answer(cold: ColdColumns, *hits: Copy, **held: int) -> HotAnswer:
    """`held` are revisions of posts that the hot tier holds beside its hits, such as deleted ones."""
    revisions = held | {copy.post_id: copy.revision for copy in hits}
    cold_revisions = np.array([revisions.get(post_id, NOT_HELD) for post_id in ids_of(cold.numbers_C)], np.int64)
    return HotAnswer(*ranked(hits), cold_revisions, {})


def merged(hot: HotAnswer, cold: ColdColumns, k: int = 10, hot_limit: int = 100) -> Merged:
    return merge(hot, hot_limit, cold, k, ids_of)


def posts(result: Merged) -> str:
    return "".join(ids_of(result.numbers_K))


def test_the_best_of_both_come_first() -> None:
    cold = cold_hits(Copy("c", 0.7), Copy("d", 0.1))
    result = merged(hot_answer(cold, Copy("a", 0.9, 4), Copy("b", 0.5)), cold, k=3)
    assert posts(result) == "acb"
    assert result.scores_K.tolist() == [np.float32(score) for score in (0.9, 0.7, 0.5)]
    assert result.tiers_K.tolist() == [HOT, COLD, HOT]
    assert result.revisions_K.tolist() == [4, 1, 1]


def test_a_hot_copy_hides_its_cold_one_also_of_the_same_revision() -> None:
    for revision in (1, 2):
        cold = cold_hits(Copy("a", 0.9, revision))
        result = merged(hot_answer(cold, Copy("a", 0.2, 2)), cold)
        assert (posts(result), result.tiers_K.tolist()) == ("a", [HOT])


def test_what_the_hot_tier_deleted_hides_its_cold_copy() -> None:
    cold = cold_hits(Copy("a", 0.9, 1), Copy("b", 0.8, 5))
    assert posts(merged(hot_answer(cold, a=2, b=4), cold)) == "b", "b came back after its delete"


def test_a_newer_cold_copy_takes_the_place_of_the_hot_one() -> None:
    cold = cold_hits(Copy("a", 0.9, 3))
    result = merged(hot_answer(cold, Copy("a", 0.2, 2)), cold)
    assert (posts(result), result.tiers_K.tolist(), result.revisions_K.tolist()) == ("a", [COLD], [3])


def test_without_the_hot_tier_the_cold_hits_stay() -> None:
    cold = cold_hits(Copy("a", 0.9), Copy("b", 0.8))
    assert posts(merged(without_hot(cold), cold, k=1)) == "a"


def test_equal_scores_are_in_the_order_of_ids_also_at_the_cut() -> None:
    cold = cold_hits(Copy("d", 0.5), Copy("b", 0.5), Copy("g", 0.25), Copy("e", 0.25))
    hot = hot_answer(cold, Copy("j", 0.75), Copy("c", 0.5), Copy("a", 0.5), Copy("f", 0.25))
    assert posts(merged(hot, cold)) == "jabcdefg"
    assert posts(merged(hot, cold, k=2)) == "ja"
    assert posts(merged(hot, cold, k=6)) == "jabcde"


def test_the_cold_tier_is_asked_for_more_when_a_post_below_its_last_hit_could_belong() -> None:
    cold = cold_hits(Copy("a", 0.9), Copy("b", 0.8), Copy("c", 0.7), limit=3)
    assert not merged(hot_answer(cold, a=2), cold, k=2).cold_may_miss, "b and c"
    assert merged(hot_answer(cold, a=2, b=2), cold, k=2).cold_may_miss, "only c is left"
    assert merged(hot_answer(cold, Copy("h", 0.5), a=2, b=2), cold, k=2).cold_may_miss, "h may be worse than the next"
    assert not merged(hot_answer(cold, Copy("h", 0.7), a=2, b=2), cold, k=2).cold_may_miss
    assert not merged(hot_answer(cold, a=2, b=2), cold._replace(limit=4), k=2).cold_may_miss, "there are no more"


def test_the_hot_tier_is_asked_for_more_when_a_newer_cold_copy_took_a_hit_away() -> None:
    cold = cold_hits(Copy("a", 0.1, 2))
    hot = hot_answer(cold, Copy("a", 0.9), Copy("b", 0.8))
    assert merged(hot, cold, k=2, hot_limit=2).hot_may_miss, "the third hot post may be better than a is now"
    assert not merged(hot, cold, k=2, hot_limit=3).hot_may_miss, "there is no third one"
    assert not merged(hot, cold, k=1, hot_limit=2).hot_may_miss
    assert not merged(hot_answer(cold, Copy("b", 0.8)), cold_hits(), k=2, hot_limit=1).hot_may_miss


SCORES = st.integers(0, 8).map(lambda number: number / 8)
TIER = st.dictionaries(st.sampled_from(POSTS), st.tuples(SCORES, st.integers(1, 3)))


@given(TIER, TIER, st.sets(st.sampled_from(POSTS)), st.integers(1, 12))
def test_it_is_the_best_of_the_newest_revisions(
    hot_posts: dict[str, tuple[float, int]], cold_posts: dict[str, tuple[float, int]], deleted: set[str], k: int
) -> None:
    # One revision of a post has one score.
    cold_posts |= {
        post: hot_posts[post]
        for post, (_, revision) in cold_posts.items()
        if post in hot_posts and hot_posts[post][1] == revision
    }
    cold = cold_hits(*(Copy(post, *copy) for post, copy in cold_posts.items()))
    live = [Copy(post, *copy) for post, copy in hot_posts.items() if post not in deleted]
    held = {post: copy[1] for post, copy in hot_posts.items()}
    newest = {copy.post_id: copy for copy in live}
    for post, copy in cold_posts.items():
        if copy[1] > held.get(post, NOT_HELD):
            newest[post] = Copy(post, *copy)
    best = sorted(newest.values(), key=lambda copy: (-copy.score, copy.post_id))[:k]
    result = merged(hot_answer(cold, *live, **held), cold, k)
    assert posts(result) == "".join(copy.post_id for copy in best)
    assert result.scores_K.tolist() == [copy.score for copy in best]
    assert result.revisions_K.tolist() == [copy.revision for copy in best]
    assert not result.hot_may_miss
    assert not result.cold_may_miss
