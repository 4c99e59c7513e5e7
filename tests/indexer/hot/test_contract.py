"""What every hot tier does: one suite over all of them."""

from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.brute_force import BruteHotTier
from indexer.errors import TierRefused
from indexer.hot.matrix import TorchMatrix
from indexer.hot.tier import MatrixHotTier
from indexer.settings import HotSettings
from indexer.tiers import Filters, HotTier
from schemas.embeddings import PostEmbedding
from schemas.ids import Micros, PostId
from tests.kit.data.embeddings import DIMENSION, HOUR_US, NOW, member_embedding, post_embedding, vectors
from tests.kit.tiers import SetClock, same_hits

HotMaker = Callable[..., HotTier]

_GPU: Final = pytest.param("gpu", marks=pytest.mark.gpu)


def make(kind: str, clock: SetClock, capacity: int = 1000, window_s: float = 3600.0) -> HotTier:
    threads = 2 if kind == "faiss, two threads" else 1
    device = "cuda" if kind == "gpu" else "cpu"
    given_settings = HotSettings(capacity=capacity, window_s=window_s, device=device, threads=threads)
    return (BruteHotTier if kind == "brute" else MatrixHotTier)(DIMENSION, given_settings, clock)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["brute", "faiss", "faiss, two threads", "half precision", _GPU])
def maker(request: pytest.FixtureRequest, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> HotMaker:
    if request.param == "gpu" and not _has_cuda():
        pytest.skip("no CUDA device")
    if request.param == "half precision":
        # The code of the GPU, on the CPU.
        monkeypatch.setattr(
            "indexer.hot.tier.new_matrix", lambda slots, dimension, *_: TorchMatrix(slots, dimension, "cpu")
        )
    return lambda **settings: make(request.param, clock, **settings)


@pytest.fixture
def tier(maker: HotMaker) -> HotTier:
    return maker()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_a_post_is_found_with_its_score_and_revision(tier: HotTier) -> None:
    vector = vectors(1)[0]
    assert tier.upsert([post_embedding("p1", 3, vector=vector)]) == 1
    hits = tier.search(vector, 10)
    assert (hits.post_ids, hits.revisions) == (["p1"], [3])
    assert hits.scores[0] == pytest.approx(1.0, abs=1e-5)
    assert tier.count() == 1


def test_an_empty_tier_answers(tier: HotTier) -> None:
    assert tier.search(vectors(1)[0], 10).post_ids == []
    assert tier.revisions([PostId("p1")]) == [None]
    assert tier.posts([PostId("p1")]) == [None]
    assert list(tier.scroll_posts()) == []
    assert tier.expire(NOW) == 0


def test_an_older_or_equal_revision_changes_nothing(tier: HotTier) -> None:
    vector = vectors(1)[0]
    assert tier.upsert([post_embedding("p1", 2, vector=vector), post_embedding("p1", 2), post_embedding("p1", 1)]) == 1
    assert tier.search(vector, 10).scores[0] == pytest.approx(1.0, abs=1e-5)


def test_an_update_replaces_the_old_copy(tier: HotTier) -> None:
    query = vectors(1)[0]
    tier.upsert([post_embedding("p1", 1, vector=query), post_embedding("p2", 1)])
    assert tier.upsert([post_embedding("p1", 2, vector=-query)]) == 1
    hits = tier.search(query, 10)
    assert hits.post_ids == ["p2", "p1"]
    assert hits.revisions == [1, 2]
    assert tier.count() == 2


def test_a_delete_is_remembered_with_its_revision(tier: HotTier) -> None:
    tier.upsert([post_embedding("p1", 1), post_embedding("p2", 1)])
    assert tier.upsert([post_embedding("p1", 2, deleted=True)]) == 1
    assert tier.search(vectors(1)[0], 10).post_ids == ["p2"]
    assert tier.revisions([PostId("p1"), PostId("p2"), PostId("p3")]) == [2, 1, None]
    stored = tier.posts([PostId("p1")], with_vectors=True)[0]
    assert stored is not None
    assert (stored.deleted, stored.vector) == (True, None)
    assert tier.upsert([post_embedding("p1", 1)]) == 0
    assert tier.count() == 1


def test_a_delete_of_an_unknown_post_guards_too(tier: HotTier) -> None:
    assert tier.upsert([post_embedding("p1", 5, deleted=True)]) == 1
    assert tier.upsert([post_embedding("p1", 4)]) == 0
    assert tier.upsert([post_embedding("p1", 6)]) == 1
    assert tier.search(vectors(1)[0], 10).post_ids == ["p1"]


def test_what_is_older_than_the_window_is_not_taken(tier: HotTier) -> None:
    assert (
        tier.upsert(
            [post_embedding("p1", created_at_us=NOW - HOUR_US), post_embedding("p2", created_at_us=NOW - HOUR_US - 1)]
        )
        == 1
    )
    assert tier.revisions([PostId("p1"), PostId("p2")]) == [1, None]
    assert tier.upsert([post_embedding("p1", 2, created_at_us=NOW - HOUR_US - 1)]) == 1
    assert tier.revisions([PostId("p1")]) == [None]
    assert tier.search(vectors(1)[0], 10).post_ids == []


def test_expiry_drops_old_posts_and_forgets_old_deletes(tier: HotTier) -> None:
    tier.upsert(
        [
            post_embedding("p1", created_at_us=NOW - 100),
            post_embedding("p2", created_at_us=NOW),
            post_embedding("p3", 4, created_at_us=NOW - 50, deleted=True),
            post_embedding("p4", 4, created_at_us=NOW, deleted=True),
        ]
    )
    assert tier.expire(Micros(NOW - 100 + HOUR_US)) == 0
    assert tier.expire(Micros(NOW + HOUR_US)) == 2
    assert tier.revisions([PostId(name) for name in ("p1", "p2", "p3", "p4")]) == [None, 1, None, 4]
    assert [post.post_id for post in tier.scroll_posts()] == ["p2"]


def test_expiry_goes_by_the_newest_time_of_a_post(tier: HotTier) -> None:
    tier.upsert([post_embedding("p1", 1, created_at_us=NOW - 100)])
    tier.upsert([post_embedding("p1", 2, created_at_us=NOW)])
    assert tier.expire(Micros(NOW - 50 + HOUR_US)) == 0
    assert tier.count() == 1


def test_a_full_tier_keeps_the_newest(maker: HotMaker) -> None:
    tier = maker(capacity=3)
    tier.upsert([post_embedding(f"p{number}", created_at_us=NOW + number) for number in range(5)])
    assert sorted(tier.search(vectors(1)[0], 10).post_ids) == ["p2", "p3", "p4"]
    assert tier.upsert([post_embedding("old", created_at_us=NOW + 1)]) == 0
    assert tier.upsert([post_embedding("p3", 2, created_at_us=NOW + 3)]) == 1
    assert tier.upsert([post_embedding("p4", 2, deleted=True), post_embedding("old", created_at_us=NOW + 1)]) == 2
    assert sorted(tier.search(vectors(1)[0], 10).post_ids) == ["old", "p2", "p3"]
    assert tier.count() == 3


def test_equal_scores_come_by_post_id(tier: HotTier) -> None:
    same = vectors(1)[0]
    tier.upsert([post_embedding(name, vector=same) for name in ("p9", "p1", "p5")])
    assert tier.search(same, 3).post_ids == ["p1", "p5", "p9"]


def test_filters_are_applied_before_scoring(tier: HotTier) -> None:
    query = vectors(1)[0]
    tier.upsert([post_embedding(f"near{number:03}", vector=query, author="m7", language="de") for number in range(200)])
    tier.upsert([post_embedding(f"far{number}", created_at_us=NOW + 1) for number in range(3)])
    for filters in (
        Filters(languages=frozenset({"en", "fr"})),
        Filters(created_after_us=NOW),
        Filters(exclude_authors=frozenset({"m7", "unknown"})),
        Filters(exclude_posts=frozenset([*(f"near{number:03}" for number in range(200)), "unknown"])),
    ):
        assert sorted(tier.search(query, 3, filters).post_ids) == ["far0", "far1", "far2"]


def test_a_post_comes_with_its_vector_where_asked(tier: HotTier) -> None:
    tier.upsert([post_embedding("p1", author="m4", language=None)])
    shown, missing = tier.posts([PostId("p1"), PostId("p2")], with_vectors=True)
    assert missing is None
    assert shown is not None
    assert shown.vector is not None
    np.testing.assert_array_equal(shown.vector, np.frombuffer(post_embedding("p1").vector, "<f4"))
    assert (shown.author_id, shown.language, shown.created_at_us, shown.deleted) == ("m4", None, NOW, False)
    assert tier.posts([PostId("p1")])[0] == shown._replace(vector=None)


def test_what_it_cannot_hold_is_refused(tier: HotTier) -> None:
    with pytest.raises(TierRefused, match="p1: a vector of 3 numbers"):
        tier.upsert([post_embedding("p0"), post_embedding("p1", vector=vectors(1, dimension=3)[0])])
    with pytest.raises(TierRefused, match="m1 is a member"):
        tier.upsert([member_embedding("m1")])
    assert tier.count() == 0


def test_slots_are_used_again(maker: HotMaker) -> None:
    """Many times more changes than there are slots."""
    tier = maker(capacity=10)
    for revision in range(1, 300):
        tier.upsert([post_embedding(f"p{number}", revision) for number in range(10)])
    assert tier.count() == 10
    assert tier.search(vectors(1)[0], 20).revisions == [299] * 10


def test_many_posts_as_plain_as_brute_force(tier: HotTier, clock: SetClock) -> None:
    plain = make("brute", clock)
    languages = ("en", "de", None)
    batch = [
        post_embedding(f"p{n}", 1, vector=vector, author=f"m{n % 20}", language=languages[n % 3], created_at_us=NOW + n)
        for n, vector in enumerate(vectors(400))
    ]
    changes = [post_embedding(f"p{n}", 2, author="m3", created_at_us=NOW + n) for n in range(0, 400, 9)]
    changes += [post_embedding(f"p{n}", 3, created_at_us=NOW + n, deleted=True) for n in range(0, 400, 7)]
    for posts in (batch, changes):
        assert tier.upsert(posts) == plain.upsert(posts)
    for query in vectors(3, seed=5):
        for filters in (
            Filters(),
            Filters(languages=frozenset({"en"}), created_after_us=Micros(NOW + 360)),
            Filters(exclude_authors=frozenset({"m3", "m4"}), exclude_posts=frozenset({"p1", "p2"})),
            Filters(languages=frozenset({"xx"})),
        ):
            for k in (1, 20, 4096):
                same_hits(tier.search(query, k, filters), plain.search(query, k, filters))
    assert sorted(tier.scroll_posts()) == sorted(plain.scroll_posts())


NAMES = [PostId(f"p{number}") for number in range(8)]
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NAMES), st.integers(1, 9), st.booleans(), st.integers(-3, 6)),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(changes=CHANGES)
def test_any_order_of_changes_ends_as_in_brute_force(changes: list[tuple[PostId, int, bool, int] | int]) -> None:
    """Upserts, deletes and expiry in a tier of four posts and a window of three hours."""
    clock = SetClock()
    tier = make("faiss", clock, capacity=4, window_s=3 * 3600)
    plain = make("brute", clock, capacity=4, window_s=3 * 3600)
    for change in changes:
        if isinstance(change, int):
            now = Micros(NOW + change * HOUR_US)
            assert tier.expire(now) == plain.expire(now)
            continue
        embedding: PostEmbedding = _changed(*change)
        assert tier.upsert([embedding]) == plain.upsert([embedding])
    assert tier.revisions(NAMES) == plain.revisions(NAMES)
    assert tier.posts(NAMES) == plain.posts(NAMES)
    assert tier.count() == plain.count()
    same_hits(tier.search(vectors(1)[0], 10), plain.search(vectors(1)[0], 10))


def _changed(name: PostId, revision: int, gone: bool, hours: int) -> PostEmbedding:
    created = NOW + hours * HOUR_US
    return (
        post_embedding(name, revision, created_at_us=created, deleted=True)
        if gone
        else post_embedding(name, revision, created_at_us=created)
    )
