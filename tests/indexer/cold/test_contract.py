"""What every cold tier does: one suite over all of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.brute_force import BruteColdTier
from indexer.errors import TierRefused
from indexer.tiers import ColdQuery, ColdTier, Filters, IndexRecord, StoredPost
from schemas.embeddings import PostEmbedding, unpack_interests, unpack_vector
from schemas.ids import MemberId, Micros, Offset, Partition, PostId, Revision
from tests.kit.data.embeddings import DIMENSION, NOW, index_records, member_embedding, post_embedding, vectors
from tests.kit.tiers import SetClock, cold_tier, same_hits

KINDS = ["brute", "edge", "remote", "qdrant"]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=KINDS)
def tier(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> Iterator[ColdTier]:
    with cold_tier(request.param, tmp_path, clock) as tier_of_kind:
        yield tier_of_kind


def revision_of(tier: ColdTier, name: str) -> tuple[int, bool] | None:
    stored = tier.posts([PostId(name)])[0]
    return None if stored is None else (stored.revision, stored.deleted)


def test_a_written_post_is_found_with_its_score_and_revision(tier: ColdTier) -> None:
    written = post_embedding("p1", 3)
    assert tier.write("post", index_records(written)) == 1
    tier.flush()
    vector = unpack_vector(written.vector)
    assert vector is not None
    hits = tier.search(vector, 10)
    assert hits.post_ids == ["p1"]
    assert hits.revisions.tolist() == [3]
    assert hits.scores[0] == pytest.approx(1.0, abs=1e-5)


def test_an_empty_tier_answers(tier: ColdTier) -> None:
    assert tier.search(vectors(1)[0], 10).post_ids == []
    assert tier.search(vectors(1)[0], 10, Filters(languages=frozenset({"en"}))).post_ids == []
    assert tier.posts([PostId("p1")]) == [None]
    assert tier.members([MemberId("m1")]) == [None]
    assert list(tier.scroll_posts()) == []
    assert tier.count("post") == 0
    assert tier.sweep(NOW) == 0


def vector_of(tier: ColdTier, name: str) -> bytes:
    (stored,) = tier.posts([PostId(name)], with_vectors=True)
    assert stored is not None
    assert stored.vector is not None
    return stored.vector.tobytes()


def test_an_older_revision_changes_nothing(tier: ColdTier) -> None:
    tier.write("post", index_records(post_embedding("p1", 5)))
    assert tier.write("post", index_records(post_embedding("p1", 4, author="m9"), first=1)) == 0
    stored = tier.posts([PostId("p1")])[0]
    assert stored is not None
    assert (stored.revision, stored.author_id) == (5, "m1")


def test_of_one_revision_the_record_at_the_later_offset_counts(tier: ColdTier) -> None:
    """So the vectors of an encoder that was mended replace its old ones."""
    broken, mended = (post_embedding("p1", 5, vector=vector) for vector in vectors(2, seed=3))
    assert tier.write("post", index_records(broken, first=4)) == 1
    assert tier.write("post", index_records(mended, first=7)) == 1
    for repeated, offset in ((mended, 7), (broken, 7), (broken, 4)):
        assert tier.write("post", index_records(repeated, first=offset)) == 0
        assert vector_of(tier, "p1") == mended.vector
    assert tier.write("post", index_records(broken, first=9, partition=1)) == 0, "no offset of this partition"
    assert tier.write("post", index_records(broken, mended, first=20)) == 2, "within one batch too"
    assert vector_of(tier, "p1") == mended.vector
    assert tier.count("post") == 1


def test_a_point_that_was_damaged_is_mended_by_its_record(tier: ColdTier) -> None:
    whole, damaged = post_embedding("p1", 5), post_embedding("p1", 5, vector=vectors(1, seed=3)[0])
    others = [post_embedding(f"q{number}") for number in range(3)]
    tier.write("post", index_records(*others[:2], damaged, others[2]))
    records = index_records(*others[:2], whole, others[2])
    assert tier.write("post", records) == 0
    assert vector_of(tier, "p1") == damaged.vector
    assert tier.write("post", records, again=True) == 4
    assert vector_of(tier, "p1") == whole.vector
    assert tier.search(vectors(1)[0], 10).post_ids == tier.search(vectors(1)[0], 4).post_ids


def test_what_is_written_again_overwrites_nothing_newer(tier: ColdTier) -> None:
    old = index_records(*(post_embedding(f"p{number}", 5) for number in range(4)))
    tier.write("post", old)
    later = post_embedding("p1", 5, vector=vectors(1, seed=3)[0])
    tier.write("post", index_records(post_embedding("p0", 6, deleted=True), later, post_embedding("p2", 6), first=4))
    assert tier.write("post", old, again=True) == 1
    assert [revision_of(tier, f"p{number}") for number in range(4)] == [(6, True), (5, False), (6, False), (5, False)]
    assert vector_of(tier, "p1") == later.vector


def test_a_point_that_is_missing_is_written_again(tier: ColdTier) -> None:
    tier.write("post", index_records(post_embedding("p0", 4), first=2))
    records = index_records(post_embedding("p0", 5), post_embedding("gone", 1, deleted=True), first=8)
    assert tier.write("post", records, again=True) == 2
    assert (revision_of(tier, "p0"), revision_of(tier, "gone")) == ((5, False), (1, True))


def test_of_several_records_of_one_post_the_highest_revision_stays(tier: ColdTier) -> None:
    assert (
        tier.write(
            "post",
            index_records(
                post_embedding("p1", 1), post_embedding("p1", 3), post_embedding("p1", 2), post_embedding("p2", 1)
            ),
        )
        == 3
    )
    assert revision_of(tier, "p1") == (3, False)
    assert tier.count("post") == 2


def test_a_deleted_post_is_skipped_by_searches_and_never_comes_back_by_an_older_record(tier: ColdTier) -> None:
    tier.write("post", index_records(post_embedding("p1", 1), post_embedding("p2", 1)))
    assert tier.write("post", index_records(post_embedding("p1", 2, deleted=True), first=2)) == 1
    tier.flush()
    assert tier.search(vectors(1)[0], 10).post_ids == ["p2"]
    assert tier.count("post") == 1
    assert [stored.post_id for stored in tier.scroll_posts()] == ["p2"]
    assert revision_of(tier, "p1") == (2, True)
    assert tier.write("post", index_records(post_embedding("p1", 1), first=3)) == 0
    assert tier.search(vectors(1)[0], 10).post_ids == ["p2"]


def test_a_delete_before_its_post_guards_too(tier: ColdTier) -> None:
    assert tier.write("post", index_records(post_embedding("p1", 7, deleted=True))) == 1
    assert tier.write("post", index_records(post_embedding("p1", 6), first=1)) == 0
    assert tier.count("post") == 0
    assert tier.write("post", index_records(post_embedding("p1", 8), first=2)) == 1
    assert tier.search(vectors(1)[0], 10).post_ids == ["p1"]


def test_posts_come_in_the_order_asked(tier: ColdTier) -> None:
    written = [post_embedding(f"p{number}", author=f"m{number}", language=None) for number in range(5)]
    tier.write("post", index_records(*written))
    stored = tier.posts([PostId("p3"), PostId("gone"), PostId("p1")], with_vectors=True)
    assert [post and post.post_id for post in stored] == ["p3", None, "p1"]
    assert stored[0] is not None
    assert stored[0].vector is not None
    np.testing.assert_array_equal(stored[0].vector, np.frombuffer(written[3].vector, "<f4"))
    assert (stored[0].author_id, stored[0].language, stored[0].created_at_us) == ("m3", None, NOW)
    assert tier.posts([PostId("p3")])[0] == stored[0]._replace(vector=None)


def test_a_tombstone_has_no_vector(tier: ColdTier) -> None:
    tier.write("post", index_records(post_embedding("p1", 1), post_embedding("p1", 2, deleted=True)))
    stored = tier.posts([PostId("p1")], with_vectors=True)[0]
    assert stored is not None
    assert stored.deleted
    assert stored.vector is None


INTERESTS = list(zip(vectors(2, seed=5), (2.0, 0.5), strict=True))


def test_members_keep_their_lists_and_may_have_no_vector(tier: ColdTier) -> None:
    tier.write(
        "member",
        index_records(
            member_embedding("m1", 2, acted=("p1", "p2"), hidden=("p3",), seen=("p4",), interests=INTERESTS),
            member_embedding("m2", empty=True),
        ),
    )
    tier.flush()
    first, missing, second = tier.members([MemberId("m1"), MemberId("nobody"), MemberId("m2")])
    assert missing is None
    assert first is not None
    assert second is not None
    assert (first.revision, first.acted, first.hidden, first.deleted) == (2, ["p1", "p2"], ["p3"], False)
    assert first.seen == ["p4"]
    for (vector, weight), stored in zip(INTERESTS, unpack_interests(first.interests), strict=True):
        assert stored.weight == weight
        np.testing.assert_array_equal(stored.vector_D, vector)
    assert second.interests == b""
    assert first.vector is not None
    np.testing.assert_array_equal(first.vector, vectors(1, seed=2)[0])
    assert second.vector is None
    assert tier.count("member") == 2
    assert tier.count("post") == 0


def test_a_deleted_member_keeps_only_its_revision(tier: ColdTier) -> None:
    tier.write(
        "member", index_records(member_embedding("m1", 1, acted=("p1",)), member_embedding("m1", 2, deleted=True))
    )
    stored = tier.members([MemberId("m1")])[0]
    assert stored is not None
    assert (stored.deleted, stored.acted, stored.vector, stored.interests) == (True, [], None, b"")
    assert tier.write("member", index_records(member_embedding("m1", 1), first=2)) == 0
    assert tier.count("member") == 0


def test_a_sweep_removes_old_tombstones_alone(tier: ColdTier, clock: SetClock) -> None:
    tier.write("post", index_records(post_embedding("p1", 2, deleted=True), post_embedding("p2"), first=0))
    clock.now = Micros(NOW + 10)
    tier.write("post", index_records(post_embedding("p3", 2, deleted=True), first=2))
    tier.write("member", index_records(member_embedding("m1", 2, deleted=True)))
    beats: list[None] = []
    assert tier.sweep(Micros(NOW + 10), lambda: beats.append(None)) == 1
    assert beats, "it says that it goes on"
    assert revision_of(tier, "p1") is None
    assert revision_of(tier, "p3") == (2, True)
    assert tier.sweep(Micros(NOW + 11)) == 2
    assert tier.members([MemberId("m1")]) == [None]
    assert tier.search(vectors(1)[0], 10).post_ids == ["p2"]
    assert tier.write("post", index_records(post_embedding("p1", 1), post_embedding("p4", 1), first=9)) == 2
    assert sorted(tier.search(vectors(1)[0], 10).post_ids) == ["p1", "p2", "p4"]


def test_equal_scores_come_by_post_id(tier: ColdTier) -> None:
    same = vectors(1)[0]
    tier.write("post", index_records(*(post_embedding(name, vector=same) for name in ("p9", "p1", "p5"))))
    assert tier.search(same, 3).post_ids == ["p1", "p5", "p9"]


def test_filters_are_applied_before_scoring(tier: ColdTier) -> None:
    """The best posts fail the filters, and k of the others are still given."""
    query = vectors(1)[0]
    near = [post_embedding(f"near{number:03}", vector=query, author="m7", language="de") for number in range(60)]
    tier.write("post", index_records(*near, *(post_embedding(f"far{number:03}") for number in range(5)), first=0))
    for filters in (
        Filters(languages=frozenset({"en", "fr"})),
        Filters(exclude_authors=frozenset({"m7", "unknown"})),
        Filters(exclude_posts=frozenset([*(f"near{number:03}" for number in range(60)), "unknown"])),
        Filters(only_authors=frozenset({"m1", "unknown"})),
        Filters(only_posts=frozenset([*(f"far{number:03}" for number in range(5)), "unknown"])),
    ):
        assert {name[:3] for name in tier.search(query, 5, filters).post_ids} == {"far"}
        assert len(tier.search(query, 3, filters).post_ids) == 3


def test_the_times_are_strict_and_no_language_is_no_language(tier: ColdTier) -> None:
    tier.write(
        "post",
        index_records(
            post_embedding("p1", created_at_us=NOW), post_embedding("p2", created_at_us=NOW + 1, language=None)
        ),
    )
    query = vectors(1)[0]
    assert tier.search(query, 5, Filters(created_after_us=NOW)).post_ids == ["p2"]
    assert tier.search(query, 5, Filters(created_before_us=Micros(NOW + 1))).post_ids == ["p1"]
    assert tier.search(query, 5, Filters(created_after_us=NOW, created_before_us=Micros(NOW + 1))).post_ids == []
    assert tier.search(query, 5, Filters(languages=frozenset({"en"}))).post_ids == ["p1"]


def test_an_empty_set_of_what_may_come_lets_nothing_come(tier: ColdTier) -> None:
    tier.write("post", index_records(post_embedding("p1")))
    tier.reached({Partition(0): Offset(1)})
    for filters in (Filters(only_authors=frozenset()), Filters(only_posts=frozenset())):
        hits = tier.search(vectors(1)[0], 5, filters)
        assert (hits.post_ids, hits.position) == ([], {0: 1})


def test_the_position_is_what_the_owner_has_reached(tier: ColdTier) -> None:
    """Each partition for itself, also where it goes back because the broker has lost its newest records."""
    assert tier.position() == {}
    assert tier.search(vectors(1)[0], 5).position == {}
    tier.reached({Partition(0): Offset(5), Partition(1): Offset(2)})
    tier.reached({Partition(1): Offset(7)})
    assert tier.position() == tier.search(vectors(1)[0], 5).position == {0: 5, 1: 7}
    tier.reached({Partition(0): Offset(3)})
    assert tier.position() == {0: 3, 1: 7}


def test_a_tier_with_a_tombstone_or_a_member_alone_is_not_empty(tier: ColdTier) -> None:
    assert tier.is_empty()
    tier.write("post", index_records(post_embedding("p1", deleted=True)))
    assert not tier.is_empty()
    assert tier.sweep(Micros(NOW + 1)) == 1
    assert tier.is_empty()
    tier.write("member", index_records(member_embedding("m1")))
    assert not tier.is_empty()


def test_a_batch_is_answered_as_its_queries_are_singly(tier: ColdTier) -> None:
    tier.write("post", index_records(*(post_embedding(f"p{n}", author=f"m{n % 3}") for n in range(40))))
    tier.reached({Partition(0): Offset(40)})
    many = [
        ColdQuery(query, k, filters, exact)
        for query in vectors(2, seed=4)
        for exact in (False, True)
        for k, filters in ((1, Filters()), (10, Filters(exclude_authors=frozenset({"m1"}))), (64, Filters()))
    ]
    answers = tier.search_batch(many, timeout_s=20)
    for query, hits in zip(many, answers, strict=True):
        same_hits(hits, tier.search(query.vector_D, query.k, query.filters))
        assert hits.position == {0: 40}
    assert tier.search_batch([]) == []


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(exclude_authors=frozenset({"m1"})), Filters(only_authors=frozenset({"m2"}))]
)
def test_so_are_many_queries_with_the_same_filters(tier: ColdTier, filters: Filters) -> None:
    tier.write("post", index_records(*(post_embedding(f"p{n}", author=f"m{n % 3}") for n in range(40))))
    many = [ColdQuery(query, k, filters) for query in vectors(8, seed=5) for k in (1, 10, 64)]
    for query, hits in zip(many, tier.search_batch(many, timeout_s=20), strict=True):
        same_hits(hits, tier.search(query.vector_D, query.k, filters))


def test_a_wrong_dimension_is_refused_and_nothing_of_the_batch_is_written(tier: ColdTier) -> None:
    with pytest.raises(TierRefused, match="p2: a vector of 3 numbers"):
        tier.write("post", index_records(post_embedding("p1"), post_embedding("p2", vector=vectors(1, dimension=3)[0])))
    assert tier.count("post") == 0
    empty = PostEmbedding(PostId("p3"), Revision(1), False, MemberId("m1"), None, NOW, b"")
    with pytest.raises(TierRefused, match="p3"):
        tier.write("post", index_records(empty))


def test_many_posts_as_plain_as_brute_force(tier: ColdTier) -> None:
    """400 posts, updates and deletes, and every filter."""
    plain = BruteColdTier(DIMENSION)
    languages = ("en", "de", None)
    batch = [
        post_embedding(f"p{n}", 1, vector=vector, author=f"m{n % 20}", language=languages[n % 3], created_at_us=NOW + n)
        for n, vector in enumerate(vectors(400))
    ]
    changes = [post_embedding(f"p{n}", 2, author="m3") for n in range(0, 400, 9)]
    changes += [post_embedding(f"p{n}", 3, deleted=True) for n in range(0, 400, 7)]
    for first, posts in ((0, batch), (400, changes)):
        assert tier.write("post", index_records(*posts, first=first)) == plain.write("post", index_records(*posts))
        tier.flush()
    for query in vectors(3, seed=5):
        for filters in (
            Filters(),
            Filters(languages=frozenset({"en"})),
            Filters(languages=frozenset({"en"}), created_after_us=Micros(NOW + 360)),
            Filters(exclude_authors=frozenset({"m3", "m4"}), exclude_posts=frozenset({"p1", "p2"})),
            Filters(languages=frozenset({"xx"})),
            Filters(created_after_us=Micros(NOW + 50), created_before_us=Micros(NOW + 300)),
            Filters(only_authors=frozenset({"m3", "m4", "m5"}), exclude_authors=frozenset({"m4"})),
            Filters(only_authors=frozenset({f"m{n}" for n in range(15)}), languages=frozenset({"de"})),
            Filters(only_posts=frozenset(f"p{n}" for n in range(0, 800, 2)), exclude_posts=frozenset({"p4"})),
        ):
            for k in (1, 20, 1000):
                same_hits(tier.search(query, k, filters), plain.search(query, k, filters))
    assert sorted(tier.scroll_posts()) == sorted(plain.scroll_posts())
    assert tier.count("post") == plain.count("post")


NAMES = [PostId(f"p{number}") for number in range(6)]
WRITES = st.lists(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 5), st.booleans()), min_size=1, max_size=8), max_size=5
)


@pytest.mark.parametrize("kind", ["edge", "qdrant"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=WRITES, seed=st.integers(0, 9))
def test_any_order_and_any_repeats_end_as_in_brute_force(
    kind: str, tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[PostId, int, bool]]], seed: int
) -> None:
    """Each record has a vector of its own, also where several have the same revision."""
    clock, plain = SetClock(), BruteColdTier(DIMENSION, SetClock())
    with cold_tier(kind, tmp_path_factory.mktemp("cold"), clock) as tier:
        log: list[IndexRecord] = []
        for batch in batches:
            own = vectors(len(batch), seed=100 * seed + len(log))
            posts = [
                post_embedding(name, revision, deleted=gone, vector=vector)
                for (name, revision, gone), vector in zip(batch, own, strict=True)
            ]
            log += index_records(*posts, first=len(log))
            # Each batch comes twice, as after a crash before its commit.
            for _ in range(2):
                written = log[-len(batch) :]
                assert tier.write("post", written) == plain.write("post", written)
            # All that is the newest of its post comes again, as when an operator asks for it.
            newest = sorted(
                {record.embedding.entity_id: record for record in log}.values(), key=lambda each: each.offset
            )
            assert tier.write("post", newest, again=True) == plain.write("post", newest, again=True)
        assert tier.posts(NAMES) == plain.posts(NAMES)
        assert [_bytes(post) for post in tier.posts(NAMES, with_vectors=True)] == [
            _bytes(post) for post in plain.posts(NAMES, with_vectors=True)
        ]
        query = vectors(1)[0]
        same_hits(tier.search(query, 10), plain.search(query, 10))


def _bytes(post: StoredPost | None) -> bytes | None:
    return None if post is None or post.vector is None else post.vector.tobytes()
