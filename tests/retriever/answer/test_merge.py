"""The merge of both tiers, compared with a slow and obvious one."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.tiers import Hits
from retriever.answer.merge import NO_HITS, UNCHANGED, HotNow, Merged, changed_meanwhile, may_miss_posts, merge
from schemas.ids import PostId, Revision


class Copy(NamedTuple):
    post_id: str
    score: float
    revision: int = 1


def hits(*copies: Copy) -> Hits:
    ranked = sorted(copies, key=lambda copy: (-copy.score, copy.post_id))
    return Hits(
        [PostId(copy.post_id) for copy in ranked],
        np.array([copy.score for copy in ranked], np.float32),
        [Revision(copy.revision) for copy in ranked],
    )


def hot_now(hot: Hits, cold: Hits, *changed: Copy, **revisions: int) -> HotNow:
    """`changed` are live and pass the filters; `revisions` are of all posts that the hot tier knows."""
    known = [Revision(revisions[post_id]) if post_id in revisions else None for post_id in cold.post_ids]
    return HotNow(changed_meanwhile(hot, cold, known), hits(*changed))


def test_the_best_of_both_come_first() -> None:
    hot, cold = hits(Copy("a", 0.9), Copy("b", 0.5)), hits(Copy("c", 0.7), Copy("d", 0.1))
    assert merge(hot, cold, hot_now(hot, cold), 3) == Merged(
        [PostId("a"), PostId("c"), PostId("b")],
        [float(np.float32(score)) for score in (0.9, 0.7, 0.5)],
        ["hot", "cold", "hot"],
    )


def test_a_hot_copy_hides_its_cold_one() -> None:
    hot, cold = hits(Copy("a", 0.2, 2)), hits(Copy("a", 0.9, 1))
    assert merge(hot, cold, hot_now(hot, cold, a=2), 10).tiers == ["hot"]
    assert merge(hot, hits(Copy("a", 0.9, 2)), UNCHANGED, 10).tiers == ["hot"]


def test_a_newer_cold_copy_takes_the_place_of_the_hot_one() -> None:
    hot, cold = hits(Copy("a", 0.2, 2)), hits(Copy("a", 0.9, 3))
    merged = merge(hot, cold, hot_now(hot, cold, a=2), 10)
    assert (merged.post_ids, merged.tiers) == (["a"], ["cold"])


def test_what_the_hot_tier_deleted_hides_its_cold_copy() -> None:
    cold = hits(Copy("a", 0.9, 1), Copy("b", 0.8, 5))
    merged = merge(NO_HITS, cold, hot_now(NO_HITS, cold, a=2, b=4), 10)
    assert merged.post_ids == ["b"], "a was deleted with revision 2; b came back after its delete"


def test_a_post_that_left_the_hot_tier_after_its_search_is_there_once() -> None:
    hot, cold = hits(Copy("a", 0.5)), hits(Copy("a", 0.5))
    assert merge(hot, cold, hot_now(hot, cold), 10).post_ids == ["a"]


def test_a_post_that_came_into_the_hot_tier_after_its_search_keeps_its_cold_copy() -> None:
    cold = hits(Copy("a", 0.9, 2))
    assert merge(NO_HITS, cold, hot_now(NO_HITS, cold, a=2), 10) == Merged(
        [PostId("a")], [float(np.float32(0.9))], ["cold"]
    )


def test_of_a_post_that_changed_after_both_searches_the_new_score_counts() -> None:
    hot, cold = hits(Copy("a", 0.9, 1), Copy("h", 0.75)), hits(Copy("a", 0.5, 2), Copy("b", 0.375))
    now = hot_now(hot, cold, Copy("a", 0.25, 3), a=3, h=1)
    assert merge(hot, cold, now, 10) == Merged(
        [PostId("h"), PostId("b"), PostId("a")], [0.75, 0.375, 0.25], ["hot", "cold", "hot"]
    )


def test_a_hot_post_below_the_last_hit_does_not_come_up_as_its_old_cold_copy() -> None:
    hot, cold = hits(Copy("h", 0.5)), hits(Copy("a", 0.9, 1))
    now = hot_now(hot, cold, Copy("a", 0.25, 2), a=2)
    assert merge(hot, cold, now, 1).post_ids == ["h"]


def test_equal_scores_are_in_the_order_of_ids_across_tiers() -> None:
    hot, cold = hits(Copy("d", 0.5), Copy("b", 0.5), Copy("x", 0.9)), hits(Copy("c", 0.5), Copy("a", 0.5))
    assert merge(hot, cold, hot_now(hot, cold), 4).post_ids == ["x", "a", "b", "c"]


def test_nothing_and_nothing_is_nothing() -> None:
    assert merge(NO_HITS, NO_HITS, UNCHANGED, 5) == Merged([], [], [])


def test_too_many_hidden_copies_are_noticed() -> None:
    cold = hits(Copy("a", 0.9), Copy("b", 0.8), Copy("c", 0.7))
    short = merge(NO_HITS, cold, hot_now(NO_HITS, cold, a=2, b=2), 2)
    assert may_miss_posts(short, cold, limit=3, k=2), "d, the fourth of the cold tier, may belong into the answer"
    assert not may_miss_posts(short, cold, limit=4, k=2), "the cold tier had no more"
    filled = merge(hits(Copy("h", 0.75)), cold, hot_now(hits(Copy("h", 0.75)), cold, a=2, b=2), 2)
    assert not may_miss_posts(filled, cold, limit=3, k=2)
    low = merge(hits(Copy("h", 0.1)), cold, hot_now(hits(Copy("h", 0.1)), cold, a=2, b=2), 2)
    assert may_miss_posts(low, cold, limit=3, k=2), "d may be better than h"


def test_too_many_replaced_hot_hits_are_noticed() -> None:
    hot, cold = hits(Copy("a", 0.9), Copy("b", 0.8)), hits(Copy("a", 0.9), Copy("c", 0.7))
    merged = merge(hot, cold, hot_now(hot, cold, a=2), 1)
    assert not may_miss_posts(merged, hot, limit=2, k=1), "b takes the place of a"
    merged = merge(hot, cold, hot_now(hot, cold, a=2), 2)
    assert may_miss_posts(merged, hot, limit=2, k=2), "the third of the hot tier may be better than c"
    assert not may_miss_posts(merged, hot, limit=3, k=2), "the hot tier had no more"


class Version(NamedTuple):
    """What one revision of a post is: a score that the filters let through, or None (they do not, or it is deleted)."""

    revision: int
    score: float | None


NO_VERSION: Final = Version(-1, None)


class History(NamedTuple):
    """One post: its revisions, and the newest that each place holds when it is looked at (0: none)."""

    scores: list[float | None]
    hot_search: int
    cold_search: int
    hot_later: int

    def at(self, revision: int) -> Version:
        return Version(revision, self.scores[revision - 1]) if revision else NO_VERSION


_places = st.integers(0, 3)
_histories = st.dictionaries(
    st.sampled_from("abcdefghij"),
    st.builds(
        History, st.lists(st.sampled_from([None, 0.125, 0.25, 0.5]), min_size=3, max_size=3), _places, _places, _places
    ),
    max_size=10,
)

_changed_meanwhile = st.builds(
    History,
    st.tuples(*[st.integers(1, 7).map(lambda eighths: eighths / 8)] * 2, st.none()).map(list),
    st.just(1),
    st.integers(0, 2),
    st.integers(1, 3),
)
_full_histories = st.fixed_dictionaries(dict.fromkeys("abcdef", _changed_meanwhile))
"""Most posts are in both tiers, and many are deleted before the hot tier is looked at again."""


class Looks(NamedTuple):
    """The hits of both searches, as far down as they were asked for."""

    hot: Hits
    cold: Hits


def searched(histories: dict[str, History], hot_limit: int, cold_limit: int) -> Looks:
    def best(revision_of: Callable[[History], int], limit: int) -> Hits:
        looks = {post_id: history.at(revision_of(history)) for post_id, history in histories.items()}
        best_hits = hits(*(Copy(post_id, look.score, look.revision) for post_id, look in looks.items() if look.score))
        return Hits(best_hits.post_ids[:limit], best_hits.scores[:limit], best_hits.revisions[:limit])

    return Looks(
        best(lambda history: history.hot_search, hot_limit), best(lambda history: history.cold_search, cold_limit)
    )


def obvious(histories: dict[str, History], looks: Looks) -> list[tuple[float, str, str]]:
    """(-score, post id, tier), for every post that a search shows, or would if it were asked for more. Later looks at
    the hot tier reach only what the cold search shows."""
    answer = []
    for post_id, history in histories.items():
        unseen = post_id not in {*looks.hot.post_ids, *looks.cold.post_ids}
        hot = history.at(history.hot_search) if unseen or post_id in looks.hot.post_ids else NO_VERSION
        cold = history.at(history.cold_search) if unseen or post_id in looks.cold.post_ids else NO_VERSION
        shown_hot, shown_cold = (version if version.score is not None else NO_VERSION for version in (hot, cold))
        later = history.at(history.hot_later) if post_id in looks.cold.post_ids else NO_VERSION
        newest, tier = max(
            (later, 0, "hot"),
            (shown_cold, 1, "cold"),
            (shown_hot, 2, "hot"),
            key=lambda look: (look[0].revision, look[1]),
        )[::2]
        if newest.score is not None:
            answer.append((-newest.score, post_id, tier))
    return sorted(answer)


def merged_of(histories: dict[str, History], looks: Looks, k: int) -> Merged:
    hot, cold = looks
    revisions = {post_id: history.hot_later for post_id, history in histories.items() if history.hot_later}
    now = hot_now(hot, cold, **revisions)
    later = ((cold.post_ids[row], histories[cold.post_ids[row]]) for row in now.changed_rows)
    newest = ((post_id, history.at(history.hot_later)) for post_id, history in later)
    changed = hits(*(Copy(post_id, look.score, look.revision) for post_id, look in newest if look.score))
    return merge(hot, cold, now._replace(changed=changed), k)


def ranked(merged: Merged) -> list[tuple[float, str, str]]:
    return list(zip([-score for score in merged.scores], merged.post_ids, merged.tiers, strict=True))


@settings(deadline=None)
@given(_histories, st.integers(1, 12))
def test_of_every_post_the_newest_revision_counts(histories: dict[str, History], k: int) -> None:
    looks = searched(histories, len(histories), len(histories))
    assert ranked(merged_of(histories, looks, k)) == obvious(histories, looks)[:k]


DELETED_MEANWHILE: Final = {
    "a": History([0.875, None, None], hot_search=1, cold_search=1, hot_later=2),
    "h": History([0.75, None, None], hot_search=1, cold_search=0, hot_later=1),
    "b": History([0.5, None, None], hot_search=0, cold_search=1, hot_later=0),
}


@settings(deadline=None)
@example(histories=DELETED_MEANWHILE, k=1, hot_margin=0, cold_margin=4)
@given(histories=_full_histories, k=st.integers(1, 3), hot_margin=st.integers(0, 4), cold_margin=st.integers(0, 4))
def test_no_hit_that_was_not_asked_for_is_better_than_the_answer(
    histories: dict[str, History], k: int, hot_margin: int, cold_margin: int
) -> None:
    """Unless `may_miss_posts` says so, and then both tiers are asked again. Of equal scores at the cut any may come."""
    limits = k + hot_margin, k + cold_margin
    looks = searched(histories, *limits)
    merged = merged_of(histories, looks, k)
    if any(may_miss_posts(merged, part, part_limit, k) for part, part_limit in zip(looks, limits, strict=True)):
        looks = searched(histories, len(histories), len(histories))
        merged = merged_of(histories, looks, k)
    expected = obvious(histories, looks)
    assert set(ranked(merged)) <= set(expected)
    assert [-score for score in merged.scores] == [score for score, _, _ in expected[:k]]
