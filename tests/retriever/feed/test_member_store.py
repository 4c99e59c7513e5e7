"""The member store: it never gives an older record than the ones that it or the cold tier has seen, in any order of
events, however small it is."""

import random
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.brute_force import BruteColdTier
from indexer.errors import TierRefused
from indexer.tiers import StoredMember
from retriever.feed.member_rows import HeldMember, MemberRows
from retriever.feed.member_store import ASKED_LATELY_S, Lookup, MemberStore
from retriever.reasons import Code, Reason
from schemas.embeddings import MemberEmbedding
from schemas.ids import MemberId, Offset, Partition, PostId
from tests.kit.data.embeddings import DIMENSION, index_records, member_embedding, vectors

A, B, C = (MemberId(name) for name in "abc")
MEMBERS = 3
BEHIND = Reason(Code.HOT_BEHIND, "the feed is behind")


class Setup:
    """A store, and what it is told from outside."""

    def __init__(self, capacity: int = 10, most_interests: int = 0) -> None:
        self.indexed: dict[Partition, Offset] = {}
        self.feed_problem: Reason | None = None
        self.now_s = 1000.0
        self.store = MemberStore(
            capacity,
            DIMENSION,
            indexed=lambda: dict(self.indexed),
            feed_problem=lambda: self.feed_problem,
            most_interests=most_interests,
            clock=lambda: self.now_s,
        )

    def apply(self, *embeddings: MemberEmbedding, first: int) -> int:
        return self.store.apply(index_records(*embeddings, first=first))

    def revision(self, member_id: MemberId) -> int | None:
        member = self.store.find(member_id).member
        return None if member is None else member.revision


@pytest.fixture
def setup() -> Setup:
    setup = Setup()
    setup.store.begin({Partition(0): Offset(100)})
    return setup


def stored(
    member_id: MemberId, revision: int = 1, *, hidden: Sequence[str] = (), deleted: bool = False
) -> StoredMember:
    tier = BruteColdTier(DIMENSION)
    tier.write("member", index_records(member_embedding(member_id, revision, hidden=hidden, deleted=deleted)))
    (member,) = tier.members([member_id])
    assert member is not None
    return member


def test_a_member_is_given_back_whole(setup: Setup) -> None:
    vector = vectors(1, seed=7)[0]
    interests = [(vectors(1, seed=8)[0], 1.5), (vector, 0.25)]
    lists = {"acted": ["p1", "ü"], "hidden": ["p2"], "seen": ["p3"], "interests": interests}
    setup.apply(member_embedding("a", 3, vector=vector, **lists), first=100)
    lookup = setup.store.find(A)
    assert lookup.is_sure
    assert lookup.member is not None
    member = lookup.member
    assert (member.member_id, member.revision, member.deleted) == ("a", 3, False)
    assert (member.acted, member.hidden, member.seen) == (["p1", "ü"], ["p2"], ["p3"])
    np.testing.assert_array_equal(member.vector, vector)
    assert [weight for _, weight in member.interests] == [1.5, 0.25]
    np.testing.assert_array_equal([vector_D for vector_D, _ in member.interests], [each for each, _ in interests])


def test_a_member_without_profile_and_history_has_no_vector(setup: Setup) -> None:
    setup.apply(member_embedding("a", empty=True, hidden=["p"]), first=100)
    member = setup.store.find(A).member
    assert member is not None
    assert (member.vector, member.hidden, member.interests) == (None, ["p"], [])


def test_a_copy_stays_as_it_was(setup: Setup) -> None:
    setup.apply(member_embedding("a", 1, hidden=["p"]), first=100)
    before = setup.store.find(A).member
    setup.apply(member_embedding("a", 2, deleted=True), first=101)
    assert before is not None
    assert before.hidden == ["p"]
    np.testing.assert_array_equal(before.vector, vectors(1, seed=1)[0])


@pytest.mark.parametrize(("revision", "offset"), [(1, 101), (2, 100), (2, 99)], ids=["older", "the same", "earlier"])
def test_what_is_not_newer_changes_nothing(setup: Setup, revision: int, offset: int) -> None:
    setup.apply(member_embedding("a", 2, hidden=["p"]), first=100)
    assert setup.apply(member_embedding("a", revision), first=offset) == 0
    member = setup.store.find(A).member
    assert member is not None
    assert (member.revision, member.hidden) == (2, ["p"])


def test_of_one_revision_the_later_record_counts(setup: Setup) -> None:
    mended = vectors(1, seed=9)[0]
    setup.apply(member_embedding("a", 2), first=100)
    assert setup.apply(member_embedding("a", 2, vector=mended), first=101) == 1
    member = setup.store.find(A).member
    assert member is not None
    np.testing.assert_array_equal(member.vector, mended)


def test_of_one_revision_a_record_counts_more_than_what_the_cold_tier_said(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(100)}
    setup.store.refill(setup.store.find(A), stored(A, 5))
    mended = vectors(1, seed=9)[0]
    assert setup.apply(member_embedding("a", 5, vector=mended), first=100) == 1
    setup.store.refill(setup.store.find(A)._replace(is_sure=False), stored(A, 5))
    member = setup.store.find(A).member
    assert member is not None
    np.testing.assert_array_equal(member.vector, mended)


def test_a_deleted_member_is_known_as_deleted_and_nothing_else_is_left_of_it(setup: Setup) -> None:
    setup.apply(member_embedding("a", 1, hidden=["secret"]), first=100)
    setup.apply(member_embedding("a", 2, deleted=True), first=101)
    lookup = setup.store.find(A)
    assert lookup.is_sure
    assert lookup.member is not None
    assert lookup.member.deleted
    assert (lookup.member.vector, lookup.member.hidden) == (None, [])
    assert_erased(setup.store._rows)


def assert_erased(rows: MemberRows) -> None:
    assert not rows._vectors_SD.any()
    assert not any(b"secret" in lists for lists in rows._lists)


def test_an_evicted_member_is_overwritten() -> None:
    setup = Setup(capacity=1)
    setup.store.begin({Partition(0): Offset(0)})
    setup.apply(member_embedding("a", 1, hidden=["secret"]), first=0)
    lists = setup.store._rows._lists[0]
    setup.apply(member_embedding("b", 1, deleted=True), first=1)
    assert_erased(setup.store._rows)
    assert b"secret" not in lists


def test_a_vector_of_another_dimension_is_refused_and_nothing_applied(setup: Setup) -> None:
    wrong = member_embedding("b", vector=vectors(1, dimension=DIMENSION + 1)[0])
    with pytest.raises(TierRefused, match="b: a vector of 17 numbers"):
        setup.apply(member_embedding("a"), wrong, first=100)
    assert setup.store.count() == 0


def test_the_least_recently_used_member_goes() -> None:
    setup = Setup(capacity=2)
    setup.store.begin({Partition(0): Offset(0)})
    setup.apply(member_embedding("a"), member_embedding("b"), first=0)
    setup.store.find(A)
    setup.apply(member_embedding("c"), first=2)
    assert [setup.revision(member) for member in (A, B, C)] == [1, None, 1]
    assert setup.store.floor() == {0: 2}


def test_long_lists_take_the_place_of_several_members() -> None:
    setup = Setup(capacity=4)
    setup.store.begin({Partition(0): Offset(0)})
    long = [f"a-long-post-id-{number}" for number in range(800)]
    setup.apply(member_embedding("a"), member_embedding("b", hidden=long), member_embedding("c", hidden=long), first=0)
    assert [setup.revision(member) for member in (A, B, C)] == [None, None, 1]
    setup.apply(*(member_embedding(f"m{number}") for number in range(3)), first=3)
    assert setup.store.count() == 4, "the slots of the two that went are used again"


@pytest.mark.parametrize(("most_interests", "held"), [(0, 1), (16, 2)])
def test_interests_take_no_room_of_the_lists(most_interests: int, held: int) -> None:
    setup = Setup(capacity=2, most_interests=most_interests)
    setup.store.begin({Partition(0): Offset(0)})
    interests = [(vector, 1.0) for vector in vectors(16)]
    hidden = [f"a-post-id-{number:09}" for number in range(180)]  # the two lists alone have room
    setup.apply(*(member_embedding(member, hidden=hidden, interests=interests) for member in (A, B)), first=0)
    assert setup.store.count() == held


def test_before_the_feed_begins_nothing_is_sure() -> None:
    setup = Setup()
    lookup = setup.store.find(A)
    assert (lookup.member, lookup.is_sure) == (None, False)
    member, doubt = setup.store.refill(lookup, stored(A))
    assert member is not None
    assert doubt is not None
    assert doubt.code == Code.COLD_BEHIND
    assert setup.revision(A) is None


def test_what_the_cold_tier_said_is_kept(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(100)}
    lookup = setup.store.find(A)
    assert not lookup.is_sure
    member, doubt = setup.store.refill(lookup, stored(A, 5, hidden=["p"]))
    assert doubt is None
    assert member is not None
    assert member.hidden == ["p"]
    lookup = setup.store.find(A)
    assert lookup.is_sure
    assert lookup.member is not None
    assert (lookup.member.revision, lookup.member.hidden) == (5, ["p"])


def test_what_the_cold_tier_said_can_be_forgotten_and_nothing_else(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(100)}
    setup.store.refill(setup.store.find(A), stored(A, 5, hidden=["secret"]))
    rows = setup.store._rows
    setup.apply(member_embedding("b", 2), first=100)
    setup.store.forget_cold_copies()
    assert [setup.revision(member) for member in (A, B)] == [None, 2]
    assert not any(b"secret" in lists for lists in rows._lists)
    assert setup.store.floor() == {0: 100}
    setup.apply(member_embedding("c"), first=101)
    assert [setup.revision(member) for member in (A, B, C)] == [None, 2, 1]


def test_a_newer_record_that_came_in_meanwhile_wins(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(100)}
    lookup = setup.store.find(A)
    setup.apply(member_embedding("a", 6), first=100)
    member, doubt = setup.store.refill(lookup, stored(A, 5))
    assert doubt is None
    assert member is not None
    assert member.revision == 6
    assert setup.revision(A) == 6


def test_a_newer_record_that_came_in_and_went_meanwhile_is_not_forgotten() -> None:
    setup = Setup(capacity=1)
    setup.store.begin({Partition(0): Offset(0)})
    setup.apply(member_embedding("c"), first=0)
    setup.apply(member_embedding("b"), first=1)
    setup.indexed = {Partition(0): Offset(2)}
    lookup = setup.store.find(A)
    setup.apply(member_embedding("a", 6), member_embedding("b", 2), first=2)
    member, doubt = setup.store.refill(lookup, stored(A, 5))
    assert member is not None
    assert doubt is not None, "the cold tier had not seen the record that the store dropped"
    assert setup.revision(A) is None


def test_an_index_that_is_behind_the_window_is_said(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(99)}
    member, doubt = setup.store.refill(setup.store.find(A), stored(A))
    assert member is not None
    assert doubt is not None
    assert doubt.code == Code.COLD_BEHIND


def test_it_says_what_keeps_it_from_being_sure(setup: Setup) -> None:
    problem = setup.store.problem()
    assert problem is not None
    assert problem.code == Code.COLD_BEHIND
    setup.indexed = {Partition(0): Offset(100)}
    assert setup.store.problem() is None
    setup.feed_problem = BEHIND
    assert setup.store.problem() == BEHIND


def test_a_feed_that_is_behind_makes_nothing_sure(setup: Setup) -> None:
    setup.indexed = {Partition(0): Offset(100)}
    setup.apply(member_embedding("a", 1), first=100)
    setup.feed_problem = BEHIND
    lookup = setup.store.find(A)
    assert lookup.member is not None, "for the case that the cold tier does not answer either"
    assert not lookup.is_sure
    member, doubt = setup.store.refill(lookup, stored(A, 2))
    assert member is not None
    assert (member.revision, doubt) == (2, BEHIND)


def test_who_was_never_written_is_known_where_all_is_held() -> None:
    setup = Setup(capacity=1)
    setup.store.begin({Partition(0): Offset(0), Partition(1): Offset(0)})
    setup.apply(member_embedding("a"), first=0)
    assert setup.store.find(B) == Lookup(B, None, is_sure=True, indexed={})
    setup.apply(member_embedding("b"), first=1)
    assert not setup.store.find(A).is_sure, "it had to go"


def test_after_a_hole_nothing_from_before_is_left(setup: Setup) -> None:
    setup.apply(member_embedding("a", hidden=["secret"]), first=100)
    rows = setup.store._rows
    setup.store.begin({Partition(0): Offset(205)})
    assert_erased(rows)
    assert setup.store.find(A).member is None
    assert setup.store.floor() == {0: 205}
    setup.apply(member_embedding("b"), first=205)
    assert setup.revision(B) == 1


def test_who_asked_lately_is_watched(setup: Setup) -> None:
    seen: list[HeldMember] = []
    setup.store.watch(seen.append)
    setup.apply(member_embedding("a"), member_embedding("b"), first=100)
    assert seen == []
    setup.store.find(A)
    setup.apply(member_embedding("a", 1), first=100)
    setup.apply(member_embedding("b", 2), member_embedding("a", 2), first=102)
    assert [(member.member_id, member.revision) for member in seen] == [("a", 2)]
    setup.apply(member_embedding("a", 3, deleted=True), first=105)
    assert [(member.revision, member.deleted) for member in seen] == [(2, False), (3, True)]
    setup.now_s += ASKED_LATELY_S
    setup.apply(member_embedding("a", 4), first=106)
    assert len(seen) == 2


class Pipeline:
    """A log of members in two partitions, which the feed and the index stage read each at its own speed. Questions are
    asked while both go on. The methods are the steps; `number` says who or where."""

    def __init__(self, capacity: int, num_before: int) -> None:
        self.setup = Setup(capacity)
        self.log: list[list[MemberEmbedding]] = [[], []]
        self.revisions = [0] * MEMBERS
        self.cold = BruteColdTier(DIMENSION)
        self.fed, self.indexed = [0, 0], [0, 0]
        self.asked: list[tuple[Lookup, StoredMember | None, tuple[int, int]]] = []
        for number in range(num_before):
            self.write(number)
        self.lose_records_unread(0)

    def write(self, number: int, *, deleted: bool = False) -> None:
        member = number % MEMBERS
        self.revisions[member] += 1
        self.log[member % 2].append(member_embedding(f"m{member}", self.revisions[member], deleted=deleted))

    def write_again(self, number: int) -> None:
        """The newest record of a member, as another one of the same revision."""
        records = self.log[number % MEMBERS % 2]
        newest = [record for record in records if record.member_id == f"m{number % MEMBERS}"][-1:]
        for record in newest:
            copy = [PostId(str(_rank(record)[1] + 1))]
            records.append(record if record.deleted else msgspec.structs.replace(record, hidden=copy))

    def delete(self, number: int) -> None:
        self.write(number, deleted=True)

    def feed(self, number: int) -> None:
        self._feed(number % 2, self.fed[number % 2], 1 + number // 2)

    def feed_again(self, number: int) -> None:
        """As after an interruption."""
        self._feed(number % 2, max(0, self.fed[number % 2] - 2), 2)

    def _feed(self, partition: int, first: int, count: int) -> None:
        records = self.log[partition][first : first + count]
        self.setup.store.apply(index_records(*records, first=first, partition=partition))
        self.fed[partition] = max(self.fed[partition], first + len(records))

    def index(self, number: int) -> None:
        partition, first = number % 2, self.indexed[number % 2]
        records = self.log[partition][first:]
        self.cold.write("member", index_records(*records, first=first, partition=partition))
        self.indexed[partition] += len(records)

    def commit(self, _: int) -> None:
        """The index stage says how far it is, as late as it likes."""
        self.setup.indexed = offsets(self.indexed)

    def fall_behind(self, _: int) -> None:
        self.setup.feed_problem = BEHIND

    def catch_up(self, _: int) -> None:
        self.setup.feed_problem = None

    def lose_records_unread(self, _: int) -> None:
        self.fed = [len(records) for records in self.log]
        self.setup.store.begin(offsets(self.fed))

    def ask(self, number: int) -> None:
        lookup = self.setup.store.find(MemberId(f"m{number % MEMBERS}"))
        newest = self._newest_fed(lookup.member_id, number % 2)
        if lookup.is_sure:
            assert _rank(lookup.member) >= newest
        else:
            (said,) = self.cold.members([lookup.member_id])
            self.asked.append((lookup, said, newest))

    def answer(self, number: int) -> None:
        """The cold tier's answers come in any order."""
        if not self.asked:
            return
        lookup, said, newest = self.asked.pop(number % len(self.asked))
        member, doubt = self.setup.store.refill(lookup, said)
        assert _rank(member)[0] >= _rank(said)[0]
        if doubt is None:
            assert _rank(member) >= newest

    def _newest_fed(self, member_id: MemberId, partition: int) -> tuple[int, int]:
        """The rank of the newest among the records that the feed has read or lost."""
        records = self.log[partition][: self.fed[partition]]
        return max((_rank(record) for record in records if record.member_id == member_id), default=_rank(None))


def _rank(member: MemberEmbedding | StoredMember | HeldMember | None) -> tuple[int, int]:
    """The revision, and which record of this revision it is."""
    if member is None:
        return 0, 0
    return member.revision, int(member.hidden[0]) if member.hidden else 0


def offsets(by_partition: list[int]) -> dict[Partition, Offset]:
    return {Partition(number): Offset(offset) for number, offset in enumerate(by_partition)}


OFTEN: list[Callable[[Pipeline, int], None]] = [
    *(Pipeline.write, Pipeline.feed, Pipeline.index, Pipeline.commit, Pipeline.ask, Pipeline.answer)
]
SELDOM: list[Callable[[Pipeline, int], None]] = [
    *(Pipeline.write_again, Pipeline.delete, Pipeline.feed_again),
    *(Pipeline.fall_behind, Pipeline.catch_up, Pipeline.lose_records_unread),
]


@settings(max_examples=100)
@given(capacity=st.integers(1, MEMBERS), num_before=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_no_older_record_is_given_in_any_order_of_events(capacity: int, num_before: int, seed: int) -> None:
    """The steps are drawn from a seed: a mistake shows after many steps, and Hypothesis draws short lists."""
    pipeline, drawn = Pipeline(capacity, num_before), random.Random(seed)
    for _ in range(300):
        drawn.choice(3 * OFTEN + SELDOM)(pipeline, drawn.randrange(2 * MEMBERS))
