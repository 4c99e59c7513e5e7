"""What every hot tier does: one suite over all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from indexer.errors import SnapshotRefused, TierRefused
from indexer.hot.matrix.torch_matrix import TorchMatrix
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import UNKNOWN, IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, Filters, HotAnswer, HotQuery, HotTier, SnapshotMoment
from schemas.embeddings import Vector
from schemas.ids import Micros, Offset, Partition, PostId
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION, HOUR_US, NOW, hot_records, post_embedding, vectors

_GPU: Final = pytest.param("gpu", marks=pytest.mark.gpu)
NOTHING: Final = np.empty(0, np.int32)
QUERY: Final = vectors(1)[0]
P0: Final = Partition(0)
P1: Final = Partition(1)


class Subject:
    """A tier with its table of ids, asked by ids."""

    def __init__(self, tier: HotTier, ids: IdTable) -> None:
        self.tier = tier
        self.ids = ids

    def search(self, vector: Vector, k: int = 10, filters: Filters = NO_FILTERS) -> "Found":
        return self.found(self.tier.search([HotQuery(vector, k, filters, NOTHING)])[0])

    def found(self, answer: HotAnswer) -> "Found":
        return Found(self.ids.ids(answer.numbers), answer.scores, answer.revisions.tolist())

    def revisions(self, *names: str) -> list[int]:
        """As an answer says them: -1 for a post that is not held."""
        numbers = self.ids.intern([PostId(name) for name in names])
        (answer,) = self.tier.search([HotQuery(QUERY, 1, NO_FILTERS, numbers)])
        self.ids.release(numbers)
        return answer.cold_revisions.tolist()

    def posts(self, *names: str) -> "list[object]":
        return list(self.tier.posts([PostId(name) for name in names], with_vectors=True))


class Found:
    def __init__(self, post_ids: list[PostId], scores: Vector, revisions: list[int]) -> None:
        self.post_ids = post_ids
        self.scores = scores
        self.revisions = revisions


Maker = Callable[..., Subject]


def make(kind: str, capacity: int = 1000, window_s: float = 3600.0, dimension: int = DIMENSION) -> Subject:
    ids = IdTable()
    settings = HotSettings(
        capacity=capacity,
        window_s=window_s,
        device="cuda" if kind == "gpu" else "cpu",
        threads=2 if kind == "columns, two threads" else 1,
    )
    if kind == "brute":
        return Subject(BruteHotTier(dimension, settings, ids), ids)
    return Subject(MatrixHotTier(dimension, settings, ids), ids)


@pytest.fixture(params=["brute", "columns", "columns, two threads", "half precision", _GPU])
def maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Maker:
    if request.param == "gpu" and not _has_cuda():
        pytest.skip("no CUDA device")
    if request.param == "half precision":
        # The code of the GPU, on the CPU.
        monkeypatch.setattr(
            "indexer.hot.tier.new_matrix", lambda dimension, *_, **__: TorchMatrix(dimension, 1000, "cpu")
        )
    return lambda **settings: make(request.param, **settings)


@pytest.fixture
def subject(maker: Maker) -> Subject:
    return maker()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def test_a_post_is_found_with_its_score_and_revision(subject: Subject) -> None:
    assert subject.tier.apply(hot_records(post_embedding("p1", 3, vector=QUERY))) == 1
    found = subject.search(QUERY)
    assert (found.post_ids, found.revisions) == (["p1"], [3])
    assert found.scores[0] == pytest.approx(1.0, abs=1e-5)
    assert found.scores.dtype == np.float32
    assert subject.tier.count() == 1


def test_an_empty_tier_answers(subject: Subject) -> None:
    assert subject.search(QUERY).post_ids == []
    assert subject.tier.search([]) == []
    assert subject.revisions("p1") == [UNKNOWN]
    assert subject.posts("p1") == [None]
    assert list(subject.tier.scroll_posts()) == []
    assert subject.tier.expire(NOW) == 0
    assert subject.tier.floor() == {}


def test_an_older_revision_changes_nothing(subject: Subject) -> None:
    assert subject.tier.apply(hot_records(post_embedding("p1", 2, vector=QUERY), post_embedding("p1", 1))) == 1
    assert subject.search(QUERY).scores[0] == pytest.approx(1.0, abs=1e-5)


def test_of_one_revision_the_record_at_the_later_offset_counts(subject: Subject) -> None:
    broken, mended = post_embedding("p1", 2, vector=-QUERY), post_embedding("p1", 2, vector=QUERY)
    assert subject.tier.apply(hot_records(broken, first=5)) == 1
    assert subject.tier.apply(hot_records(mended, first=7)) == 1
    assert subject.tier.apply(hot_records(broken, first=7)) == 0, "the same offset again"
    assert subject.tier.apply(hot_records(broken, first=5)) == 0, "as after an interruption"
    assert subject.search(QUERY).scores.tolist() == pytest.approx([1.0], abs=1e-5)
    assert subject.tier.count() == 1


def test_an_update_replaces_the_old_copy(subject: Subject) -> None:
    subject.tier.apply(hot_records(post_embedding("p1", 1, vector=QUERY), post_embedding("p2", 1)))
    assert subject.tier.apply(hot_records(post_embedding("p1", 2, vector=-QUERY), first=2)) == 1
    found = subject.search(QUERY)
    assert (found.post_ids, found.revisions) == (["p2", "p1"], [1, 2])
    assert subject.tier.count() == 2


def test_several_changes_of_one_post_in_one_call(subject: Subject) -> None:
    posts = (
        post_embedding("p1", 1),
        post_embedding("p1", 2, deleted=True),
        post_embedding("p1", 3, vector=QUERY),
        post_embedding("p2", 1),
        post_embedding("p2", 2, deleted=True),
    )
    assert subject.tier.apply(hot_records(*posts)) == 5
    found = subject.search(QUERY)
    assert (found.post_ids, found.revisions) == (["p1"], [3])
    assert subject.revisions("p1", "p2") == [3, 2]


def test_a_delete_is_remembered_with_its_revision(subject: Subject) -> None:
    subject.tier.apply(hot_records(post_embedding("p1", 1), post_embedding("p2", 1)))
    assert subject.tier.apply(hot_records(post_embedding("p1", 2, deleted=True), first=2)) == 1
    assert subject.search(QUERY).post_ids == ["p2"]
    assert subject.revisions("p1", "p2", "p3") == [2, 1, UNKNOWN]
    (stored,) = subject.tier.posts([PostId("p1")], with_vectors=True)
    assert stored is not None
    assert (stored.deleted, stored.vector) == (True, None)
    assert subject.tier.apply(hot_records(post_embedding("p1", 1), first=3)) == 0
    assert subject.tier.count() == 1


def test_a_delete_of_an_unknown_post_guards_too(subject: Subject) -> None:
    assert subject.tier.apply(hot_records(post_embedding("p1", 5, deleted=True))) == 1
    assert subject.tier.apply(hot_records(post_embedding("p1", 4), first=1)) == 0
    assert subject.tier.apply(hot_records(post_embedding("p1", 6), first=2)) == 1
    assert subject.search(QUERY).post_ids == ["p1"]


def test_records_that_come_again_change_nothing(subject: Subject) -> None:
    records = hot_records(*(post_embedding(f"p{n}", revision) for revision in (1, 2) for n in range(3)))
    assert subject.tier.apply(records) == 6
    assert subject.tier.apply(records) == 0
    assert subject.revisions("p0", "p1", "p2") == [2, 2, 2]


def test_a_post_is_held_by_the_time_of_its_newest_record(subject: Subject) -> None:
    """When it was created does not matter, and an old revision that is written again counts as a change too."""
    subject.tier.apply(hot_records(post_embedding("p1", created_at_us=NOW - 90 * HOUR_US), at_us=NOW))
    subject.tier.apply(hot_records(post_embedding("p2", created_at_us=NOW), first=1, at_us=NOW))
    subject.tier.apply(hot_records(post_embedding("p1", 1), first=2, at_us=NOW + 50))
    assert subject.tier.expire(Micros(NOW + HOUR_US)) == 0
    assert subject.tier.expire(Micros(NOW + HOUR_US + 1)) == 1
    assert subject.revisions("p1", "p2") == [1, UNKNOWN]
    assert subject.tier.floor() == {0: 2}
    assert subject.tier.expire(Micros(NOW + HOUR_US + 51)) == 1
    assert subject.tier.floor() == {0: 3}


def test_deletes_are_forgotten_as_posts_are(subject: Subject) -> None:
    subject.tier.apply(hot_records(post_embedding("p1", deleted=True), at_us=NOW))
    subject.tier.apply(hot_records(post_embedding("p2", deleted=True), first=1, at_us=NOW + 1))
    assert subject.tier.expire(Micros(NOW + HOUR_US + 1)) == 1
    assert subject.revisions("p1", "p2") == [UNKNOWN, 1]


def test_a_window_without_an_end_forgets_nothing(maker: Maker) -> None:
    subject = maker(window_s=float("inf"))
    subject.tier.begin({P0: Offset(0)})
    subject.tier.apply(hot_records(post_embedding("p1"), at_us=0))
    assert subject.tier.expire(NOW) == 0
    assert subject.tier.floor() == {0: 0}


def test_a_full_tier_drops_the_oldest_change(maker: Maker) -> None:
    subject = maker(capacity=3)
    subject.tier.apply(hot_records(*(post_embedding(f"p{n}") for n in range(3))))
    subject.tier.apply(hot_records(post_embedding("p0", 2), post_embedding("p3"), first=3))
    assert subject.revisions("p0", "p1", "p2", "p3") == [2, UNKNOWN, 1, 1]
    assert subject.tier.floor() == {0: 2}
    subject.tier.apply(hot_records(post_embedding("p4", deleted=True), first=5))
    assert subject.revisions("p0", "p2", "p3", "p4") == [2, UNKNOWN, 1, 1]
    assert (subject.tier.count(), subject.tier.floor()) == (2, {0: 3})


def test_the_oldest_change_of_all_partitions_goes_first(maker: Maker) -> None:
    subject = maker(capacity=2)
    subject.tier.apply(hot_records(post_embedding("p1"), partition=0, first=70, at_us=NOW + 1))
    subject.tier.apply(hot_records(post_embedding("p2"), partition=1, first=8, at_us=NOW))
    subject.tier.apply(hot_records(post_embedding("p3"), partition=0, first=71, at_us=NOW + 2))
    assert subject.revisions("p1", "p2", "p3") == [1, UNKNOWN, 1]
    assert subject.tier.floor() == {0: 70, 1: 9}


def test_times_that_run_backwards_keep_the_floor_true(maker: Maker) -> None:
    """The second record is older than the first, but the floor cannot move behind it without the first one."""
    subject = maker(capacity=2)
    subject.tier.apply(hot_records(post_embedding("p1"), at_us=NOW + HOUR_US))
    subject.tier.apply(hot_records(post_embedding("p2"), first=1, at_us=NOW))
    assert subject.tier.expire(Micros(NOW + HOUR_US + 1)) == 0
    assert subject.tier.floor() == {0: 0}
    subject.tier.apply(hot_records(post_embedding("p3"), first=2, at_us=NOW + 2 * HOUR_US))
    assert subject.revisions("p1", "p2", "p3") == [UNKNOWN, 1, 1]
    assert subject.tier.floor() == {0: 1}


def test_a_partition_begins_where_the_feed_says(subject: Subject) -> None:
    subject.tier.begin({P0: Offset(0), P1: Offset(50)})
    assert subject.tier.floor() == {0: 0, 1: 50}
    subject.tier.apply(hot_records(post_embedding("p1"), first=17))
    subject.tier.apply(hot_records(post_embedding("p2"), partition=1, first=49))
    subject.tier.apply(hot_records(post_embedding("p3"), partition=2, first=5))
    assert subject.tier.floor() == {0: 0, 1: 50, 2: 5}
    assert subject.revisions("p1", "p2", "p3") == [1, UNKNOWN, 1]


def test_a_gap_forgets_what_lies_before_it(subject: Subject) -> None:
    """In the gap the posts before it may have changed."""
    subject.tier.apply(hot_records(*(post_embedding(f"p{n}") for n in range(4))))
    subject.tier.apply(hot_records(post_embedding("p8"), partition=1))
    subject.tier.begin({P0: Offset(3)})
    assert subject.revisions("p0", "p1", "p2", "p3", "p8") == [UNKNOWN, UNKNOWN, UNKNOWN, 1, 1]
    assert subject.tier.floor() == {0: 3, 1: 0}
    assert sorted(subject.search(QUERY).post_ids) == ["p3", "p8"]


def test_a_partition_that_is_read_again_from_before_its_floor_is_forgotten(subject: Subject) -> None:
    subject.tier.begin({P0: Offset(5)})
    subject.tier.apply(hot_records(post_embedding("p1"), first=5))
    subject.tier.begin({P0: Offset(2)})
    assert subject.revisions("p1") == [UNKNOWN]
    assert subject.tier.apply(hot_records(post_embedding("p0"), first=2)) == 1
    assert subject.tier.floor() == {0: 2}


def test_equal_scores_come_by_post_id(subject: Subject) -> None:
    subject.tier.apply(hot_records(*(post_embedding(name, vector=QUERY) for name in ("p9", "p1", "p5"))))
    assert subject.search(QUERY, 3).post_ids == ["p1", "p5", "p9"]


def test_filters_are_applied_before_scoring(subject: Subject) -> None:
    near = [post_embedding(f"near{n:03}", vector=QUERY, author="m7", language="de") for n in range(200)]
    far = [post_embedding(f"far{n}", created_at_us=NOW + 1) for n in range(3)]
    subject.tier.apply(hot_records(*near, *far))
    for filters in (
        Filters(languages=frozenset({"en", "fr"})),
        Filters(created_after_us=NOW),
        Filters(exclude_authors=frozenset({"m7", "unknown"})),
        Filters(only_authors=frozenset({"m1", "unknown"})),
        Filters(exclude_posts=frozenset([*(f"near{n:03}" for n in range(200)), "unknown"])),
        Filters(only_posts=frozenset({"far0", "far1", "far2", "unknown"})),
    ):
        assert sorted(subject.search(QUERY, 3, filters).post_ids) == ["far0", "far1", "far2"]
    assert len(subject.search(QUERY, 300, Filters(created_before_us=Micros(NOW + 1))).post_ids) == 200
    for filters in (Filters(only_authors=frozenset()), Filters(only_posts=frozenset())):
        assert subject.search(QUERY, 3, filters).post_ids == []


def test_a_batch_answers_each_query_as_if_it_came_alone(subject: Subject) -> None:
    subject.tier.apply(hot_records(*(post_embedding(f"p{n}", author=f"m{n % 5}") for n in range(300))))
    filters = [NO_FILTERS, Filters(exclude_authors=frozenset({"m1"})), Filters(only_posts=frozenset({"p3", "p4"}))]
    queries = [
        HotQuery(vector, 1 + 40 * (n % 3), filters[n % 3], NOTHING) for n, vector in enumerate(vectors(64, seed=4))
    ]
    for query, answer in zip(queries, subject.tier.search(queries), strict=True):
        alone = subject.search(query.vector_D, query.k, query.filters)
        assert subject.found(answer).post_ids == alone.post_ids
        np.testing.assert_allclose(answer.scores, alone.scores, atol=2e-6)


def test_a_post_comes_with_its_vector_where_asked(subject: Subject) -> None:
    subject.tier.apply(hot_records(post_embedding("p1", author="m4", language=None)))
    shown, missing = subject.tier.posts([PostId("p1"), PostId("p2")], with_vectors=True)
    assert missing is None
    assert shown is not None
    assert shown.vector is not None
    np.testing.assert_array_equal(shown.vector, np.frombuffer(post_embedding("p1").vector, "<f4"))
    assert (shown.author_id, shown.language, shown.created_at_us, shown.deleted) == ("m4", None, NOW, False)
    assert subject.tier.posts([PostId("p1")])[0] == shown._replace(vector=None)


def test_a_vector_of_another_dimension_is_refused(subject: Subject) -> None:
    with pytest.raises(TierRefused, match="p1: a vector of 3 numbers"):
        subject.tier.apply(hot_records(post_embedding("p0"), post_embedding("p1", vector=vectors(1, dimension=3)[0])))
    assert subject.tier.count() == 0


def test_deleted_posts_that_it_holds_are_counted(subject: Subject) -> None:
    tier = subject.tier
    tier.apply(hot_records(*(post_embedding(f"p{number}") for number in range(3))))
    assert (tier.count(), tier.num_tombstones()) == (3, 0)
    gone = [post_embedding(post_id, 2, deleted=True) for post_id in ("p0", "p1", "never seen")]
    tier.apply(hot_records(*gone, first=3))
    tier.apply(hot_records(*gone, first=6))
    assert (tier.count(), tier.num_tombstones()) == (1, 3), "each post once"
    tier.apply(hot_records(post_embedding("p0", 3), first=9))
    assert (tier.count(), tier.num_tombstones()) == (2, 2), "it is there again"
    tier.expire(Micros(NOW + 2 * HOUR_US))
    assert (tier.count(), tier.num_tombstones()) == (0, 0)


def test_slots_are_used_again(maker: Maker) -> None:
    """Many times more changes than there are slots."""
    subject = maker(capacity=10)
    for revision in range(1, 1000):
        posts = [post_embedding(f"p{number}", revision, vector=QUERY) for number in range(10)]
        subject.tier.apply(hot_records(*posts, first=10 * revision))
    assert subject.tier.count() == 10
    assert subject.search(QUERY, 20).revisions == [999] * 10


def test_the_tier_holds_the_numbers_of_its_posts_and_of_no_others(maker: Maker) -> None:
    """Which it released is seen when all are released once more."""
    subject = maker(capacity=2)
    subject.tier.apply(hot_records(*(post_embedding(f"p{n}", revision) for revision in (1, 2) for n in range(3))))
    subject.tier.apply(hot_records(post_embedding("p2", 1), first=6))
    subject.tier.expire(NOW)
    subject.ids.release(subject.ids.find(["p1", "p2"]))
    with pytest.raises(ValueError, match="more often"):
        subject.ids.release(subject.ids.find(["p0"]))


def test_many_posts_as_plain_as_brute_force(subject: Subject) -> None:
    plain = make("brute")
    languages = ("en", "de", None)
    batch = [
        post_embedding(f"p{n}", 1, vector=vector, author=f"m{n % 20}", language=languages[n % 3], created_at_us=NOW + n)
        for n, vector in enumerate(vectors(400))
    ]
    changes = [post_embedding(f"p{n}", 2, author="m3", created_at_us=NOW + n) for n in range(0, 400, 9)]
    changes += [post_embedding(f"p{n}", 3, created_at_us=NOW + n, deleted=True) for n in range(0, 400, 7)]
    for posts, first in ((batch, 0), (changes, 400)):
        records = hot_records(*posts, first=first)
        assert subject.tier.apply(records) == plain.tier.apply(records)
    for vector in vectors(3, seed=5):
        for filters in (
            NO_FILTERS,
            Filters(languages=frozenset({"en"}), created_after_us=Micros(NOW + 360)),
            Filters(exclude_authors=frozenset({"m3", "m4"}), exclude_posts=frozenset({"p1", "p2"})),
            Filters(created_before_us=Micros(NOW + 300), only_authors=frozenset({"m5", "m6", "m3"})),
            Filters(languages=frozenset({"en"}), only_posts=frozenset(f"p{n}" for n in range(0, 400, 5))),
            Filters(exclude_authors=frozenset(f"m{n}" for n in range(3, 15))),
            Filters(languages=frozenset({"xx"})),
        ):
            for k in (1, 20, 4096):
                found, expected = subject.search(vector, k, filters), plain.search(vector, k, filters)
                assert (found.post_ids, found.revisions) == (expected.post_ids, expected.revisions)
                np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)
    assert sorted(subject.tier.scroll_posts()) == sorted(plain.tier.scroll_posts())


MOMENT: Final = SnapshotMoment({P0: Offset(9), P1: Offset(4)}, NOW)


def test_a_snapshot_brings_everything_back(maker: Maker, tmp_path: Path) -> None:
    before, after = maker(), maker()
    before.tier.begin({P0: Offset(0), P1: Offset(3)})
    posts = [post_embedding(f"p{n}", 7, author=f"m{n % 3}", language=("en", None, "de")[n % 3]) for n in range(20)]
    before.tier.apply(hot_records(*posts, post_embedding("gone", 5, deleted=True)))
    before.tier.apply(hot_records(post_embedding("e-é-\n", 1), partition=1, first=3, at_us=NOW + 5))
    before.tier.save(tmp_path, MOMENT).result(10)
    assert after.tier.load(tmp_path) == MOMENT
    names = [*(f"p{n}" for n in range(20)), "gone", "e-é-\n"]
    assert after.revisions(*names) == before.revisions(*names)
    assert after.tier.floor() == before.tier.floor() == {0: 0, 1: 3}
    assert (after.tier.count(), after.tier.num_tombstones()) == (21, 1)
    expected = before.search(QUERY, 30)
    found = after.search(QUERY, 30)
    assert (found.post_ids, found.revisions) == (expected.post_ids, expected.revisions)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)
    assert sorted(after.tier.scroll_posts()) == sorted(before.tier.scroll_posts())
    assert after.tier.expire(Micros(NOW + HOUR_US + 1)) == before.tier.expire(Micros(NOW + HOUR_US + 1)) == 21
    assert after.tier.floor() == before.tier.floor() == {0: 21, 1: 3}


def test_an_empty_tier_has_a_snapshot_too(maker: Maker, tmp_path: Path) -> None:
    before, after = maker(), maker()
    assert before.tier.load(tmp_path) is None
    before.tier.begin({P0: Offset(8)})
    before.tier.save(tmp_path, MOMENT).result(10)
    assert after.tier.load(tmp_path) == MOMENT
    assert after.tier.floor() == {0: 8}


def test_a_snapshot_of_another_dimension_is_refused(maker: Maker, tmp_path: Path) -> None:
    maker().tier.save(tmp_path, MOMENT).result(10)
    other = maker(dimension=8)
    with pytest.raises(SnapshotRefused, match="a snapshot of vectors of 16; this tier holds vectors of 8"):
        other.tier.load(tmp_path)
    assert other.tier.floor() == {}
