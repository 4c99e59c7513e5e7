"""Two sorted lists become one, as a slow and obvious way does it."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexer.tiers import Hits
from retriever.merge import NO_HITS, Merged, merge, reaches_past
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


def known(cold: Hits, **revisions: int) -> list[Revision | None]:
    found = {post_id: Revision(revision) for post_id, revision in revisions.items()}
    return [found.get(post_id) for post_id in cold.post_ids]


def test_the_best_of_both_come_first() -> None:
    hot, cold = hits(Copy("a", 0.9), Copy("b", 0.5)), hits(Copy("c", 0.7), Copy("d", 0.1))
    assert merge(hot, cold, known(cold), 3) == Merged(
        [PostId("a"), PostId("c"), PostId("b")],
        [float(np.float32(score)) for score in (0.9, 0.7, 0.5)],
        ["hot", "cold", "hot"],
    )


def test_a_hot_copy_hides_its_cold_one() -> None:
    hot, cold = hits(Copy("a", 0.2, 2)), hits(Copy("a", 0.9, 1))
    assert merge(hot, cold, known(cold, a=2), 10).tiers == ["hot"]
    assert merge(hot, hits(Copy("a", 0.9, 2)), known(cold, a=2), 10).tiers == ["hot"]


def test_a_newer_cold_copy_takes_the_place_of_the_hot_one() -> None:
    hot, cold = hits(Copy("a", 0.2, 2)), hits(Copy("a", 0.9, 3))
    merged = merge(hot, cold, known(cold, a=2), 10)
    assert (merged.post_ids, merged.tiers) == (["a"], ["cold"])


def test_what_the_hot_tier_deleted_hides_its_cold_copy() -> None:
    cold = hits(Copy("a", 0.9, 1), Copy("b", 0.8, 5))
    merged = merge(NO_HITS, cold, known(cold, a=2, b=4), 10)
    assert merged.post_ids == ["b"], "a was deleted with revision 2; b came back after its delete"


def test_a_post_that_left_the_hot_tier_after_its_search_is_there_once() -> None:
    hot, cold = hits(Copy("a", 0.5)), hits(Copy("a", 0.5))
    assert merge(hot, cold, known(cold), 10).post_ids == ["a"]


def test_equal_scores_are_in_the_order_of_ids_across_tiers() -> None:
    hot, cold = hits(Copy("d", 0.5), Copy("b", 0.5), Copy("x", 0.9)), hits(Copy("c", 0.5), Copy("a", 0.5))
    assert merge(hot, cold, known(cold), 4).post_ids == ["x", "a", "b", "c"]


def test_nothing_and_nothing_is_nothing() -> None:
    assert merge(NO_HITS, NO_HITS, [], 5) == Merged([], [], [])


def test_too_many_hidden_copies_are_noticed() -> None:
    cold = hits(Copy("a", 0.9), Copy("b", 0.8), Copy("c", 0.7))
    short = merge(NO_HITS, cold, known(cold, a=2, b=2), 2)
    assert reaches_past(short, cold, asked=3, k=2), "d, the fourth of the cold tier, may belong into the answer"
    assert not reaches_past(short, cold, asked=4, k=2), "the cold tier had no more"
    filled = merge(hits(Copy("h", 0.75)), cold, known(cold, a=2, b=2), 2)
    assert not reaches_past(filled, cold, asked=3, k=2)
    low = merge(hits(Copy("h", 0.1)), cold, known(cold, a=2, b=2), 2)
    assert reaches_past(low, cold, asked=3, k=2), "d may be better than h"


_copies = st.dictionaries(
    st.sampled_from("abcdefghij"), st.tuples(st.sampled_from([0.125, 0.25, 0.5]), st.integers(1, 3)), max_size=10
)


@given(_copies, _copies, st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, 3)), st.integers(1, 12))
def test_as_the_obvious_way_does_it(
    hot: dict[str, tuple[float, int]], cold: dict[str, tuple[float, int]], deleted: dict[str, int], k: int
) -> None:
    revisions = {**deleted, **{post_id: revision for post_id, (_, revision) in hot.items()}}
    obvious = [
        (-score, post_id, "hot")
        for post_id, (score, revision) in hot.items()
        if cold.get(post_id, (0, 0))[1] <= revision
    ] + [
        (-score, post_id, "cold")
        for post_id, (score, revision) in cold.items()
        if revision > revisions.get(post_id, -1)
    ]
    obvious.sort()
    hot_hits = hits(*(Copy(post_id, *rest) for post_id, rest in hot.items()))
    cold_hits = hits(*(Copy(post_id, *rest) for post_id, rest in cold.items()))
    merged = merge(hot_hits, cold_hits, known(cold_hits, **revisions), k)
    assert list(zip([-s for s in merged.scores], merged.post_ids, merged.tiers, strict=True)) == obvious[:k]
