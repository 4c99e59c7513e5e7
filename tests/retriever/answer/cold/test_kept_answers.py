"""A kept answer is found again while it is exact, and its posts lose their numbers when nobody holds it any more."""

import gc
from dataclasses import dataclass, field

import numpy as np
import pytest

from indexer.id_table import IdTable
from indexer.tiers import NO_FILTERS, ColdHits, Filters, Offsets
from retriever.answer.cold.cold_answers import CANDIDATE_BYTES, ColdAnswer, ColdAnswerMaker
from retriever.answer.cold.kept_answers import Asked, KeptAnswers, Version, asked_by_member, asked_by_vector
from schemas.ids import MemberId, Offset, Partition, PostId, Revision

BEFORE_10: Offsets = {Partition(0): Offset(10)}
FLOOR: Offsets = {Partition(0): Offset(10)}
FIRST = Version(Revision(1))


@dataclass
class Setup:
    ids: IdTable = field(default_factory=IdTable)

    def __post_init__(self) -> None:
        self.maker = ColdAnswerMaker(self.ids)
        self.kept = KeptAnswers(1_000_000)

    def answer(self, *posts: str, limit: int = 2, position: Offsets = BEFORE_10) -> ColdAnswer:
        scores = np.linspace(0.9, 0.1, len(posts), dtype=np.float32)
        hits = ColdHits([PostId(post) for post in posts], scores, np.full(len(posts), 7), position)
        return self.maker.make(hits, limit)

    def references(self) -> int:
        self.maker.release_dropped()
        return int(self.ids._references.sum())


@pytest.fixture
def setup() -> Setup:
    return Setup()


def by(member_id: str, filters: Filters = NO_FILTERS, *, acted: bool = False) -> Asked:
    return asked_by_member(MemberId(member_id), filters, acted=acted, seen=False, own=False)


def test_the_next_equal_question_finds_the_answer(setup: Setup) -> None:
    answer = setup.answer("a", "b")
    setup.kept.keep(by("m"), FIRST, answer)
    assert setup.kept.find(by("m"), FIRST, 2, FLOOR) is answer
    assert setup.ids.ids(answer.columns.numbers_C) == ["a", "b"]
    assert answer.columns.revisions_C.tolist() == [7, 7]
    assert (setup.kept.found, setup.kept.missed) == (1, 0)


def test_an_answer_that_nobody_asked_for_in_a_while_is_forgotten(setup: Setup) -> None:
    now_s = 0.0
    setup.kept = KeptAnswers(1_000_000, lambda: now_s)
    for member_id in ("used", "unused"):
        setup.kept.keep(by(member_id), FIRST, setup.answer("a", "b"))
    now_s = 9.0
    setup.kept.find(by("used"), FIRST, 2, FLOOR)
    setup.kept.peek(by("unused"), FIRST, 2, FLOOR)
    now_s = 11.0
    setup.kept.forget_unused(10.0)
    assert [setup.kept.peek(by(name), FIRST, 2, FLOOR) is None for name in ("used", "unused")] == [False, True]
    assert len(setup.kept) == 1
    now_s = 20.0
    setup.kept.forget_unused(10.0)
    assert (len(setup.kept), setup.kept.num_bytes) == (0, 0)


def test_another_question_does_not(setup: Setup) -> None:
    setup.kept.keep(by("m"), FIRST, setup.answer("a", "b"))
    english = Filters(languages=frozenset({"en"}))
    others = [by("n"), by("m", english), by("m", acted=True), asked_by_vector(np.ones(4, np.float32), NO_FILTERS)]
    assert [setup.kept.find(asked, FIRST, 2, FLOOR) for asked in others] == [None] * 4
    assert setup.kept.find(by("m"), Version(Revision(2)), 2, FLOOR) is None, "the member has changed"
    encoded_again = FIRST._replace(vector=b"another")
    assert setup.kept.find(by("m"), encoded_again, 2, FLOOR) is None
    setup.kept.keep(by("m"), encoded_again, setup.answer("c"))
    assert setup.kept.find(by("m"), FIRST, 2, FLOOR) is None, "it took the place of the older one"


def test_equal_filters_are_equal_questions_in_any_order() -> None:
    names = [f"p{number}" for number in range(100)]
    left = Filters(exclude_posts=frozenset(names), only_authors=frozenset({"x", "y"}))
    right = Filters(exclude_posts=frozenset(reversed(names)), only_authors=frozenset({"y", "x"}))
    assert by("m", left) == by("m", right)
    assert by("m", left) != by("m", Filters(exclude_authors=frozenset(names), only_authors=frozenset({"x", "y"})))
    assert by("m", Filters(only_posts=frozenset())) != by("m"), "no post, and any post"


def test_vectors_are_told_apart() -> None:
    one, other = np.eye(2, dtype=np.float32)
    assert asked_by_vector(one, NO_FILTERS) == asked_by_vector(one.copy(), NO_FILTERS)
    assert asked_by_vector(one, NO_FILTERS) != asked_by_vector(other, NO_FILTERS)


def test_a_shorter_answer_serves_only_if_there_are_no_more_posts(setup: Setup) -> None:
    setup.kept.keep(by("m"), FIRST, setup.answer("a", "b", limit=2))
    assert setup.kept.find(by("m"), FIRST, 3, FLOOR) is None
    setup.kept.keep(by("m"), FIRST, setup.answer("a", "b", limit=3))
    assert setup.kept.find(by("m"), FIRST, 3, FLOOR) is not None


def test_an_answer_is_outdated_when_the_floor_has_passed_it(setup: Setup) -> None:
    setup.kept.keep(by("m"), FIRST, setup.answer("a"))
    later: Offsets = {Partition(0): Offset(11)}
    assert setup.kept.find(by("m"), FIRST, 1, later) is None
    assert setup.kept.forget_outdated(FLOOR) == 0
    assert setup.kept.forget_outdated(later) == 1
    assert (len(setup.kept), setup.kept.num_bytes, setup.references()) == (0, 0, 0)


def test_the_answer_for_a_newer_revision_takes_the_place_of_the_older_one_and_never_the_other_way(setup: Setup) -> None:
    for revision, post in ((1, "a"), (3, "b"), (2, "c")):
        setup.kept.keep(by("m"), Version(Revision(revision)), setup.answer(post))
    assert len(setup.kept) == 1
    newest = setup.kept.find(by("m"), Version(Revision(3)), 1, FLOOR)
    assert newest is not None
    assert setup.ids.ids(newest.columns.numbers_C) == ["b"]


def test_the_least_recently_used_goes(setup: Setup) -> None:
    setup.kept = KeptAnswers(3 * setup.answer("a", "b").num_bytes)
    for member in "xyz":
        setup.kept.keep(by(member), FIRST, setup.answer(f"a{member}", f"b{member}"))
    setup.kept.find(by("x"), FIRST, 2, FLOOR)
    setup.kept.keep(by("w"), FIRST, setup.answer("aw", "bw"))
    assert [setup.kept.find(by(member), FIRST, 2, FLOOR) is not None for member in "xyzw"] == [True, False, True, True]
    assert setup.references() == 6, "the numbers of y's posts are given back"


def test_an_answer_larger_than_all_the_room_is_not_kept(setup: Setup) -> None:
    setup.kept = KeptAnswers(10)
    setup.kept.keep(by("m"), FIRST, setup.answer("a"))
    assert (len(setup.kept), setup.kept.num_bytes, setup.references()) == (0, 0, 0)


def test_ids_count_too(setup: Setup) -> None:
    size = setup.answer("a", "b").num_bytes
    setup.kept = KeptAnswers(4 * size)
    for member in "wxyz":
        setup.kept.keep(by(member), FIRST, setup.answer(f"a{member}", f"b{member}"))
    setup.kept.weigh_ids(8)
    setup.kept.keep(by("w"), FIRST, setup.answer("aw", "bw"))
    assert len(setup.kept) < 4
    assert setup.kept.num_bytes + 2 * len(setup.kept) * 180 <= 4 * size


def test_numbers_stay_while_a_question_still_uses_the_answer(setup: Setup) -> None:
    setup.kept.keep(by("m"), FIRST, setup.answer("a", "b"))
    in_use = setup.kept.find(by("m"), FIRST, 2, FLOOR)
    setup.kept.keep(by("m"), Version(Revision(2)), setup.answer("c"))
    assert setup.references() == 3
    del in_use
    gc.collect()
    assert setup.references() == 1


def test_a_candidate_takes_at_most_24_bytes(setup: Setup) -> None:
    answer = setup.answer(*(f"post-{number}" for number in range(2096)), limit=2096)
    columns = (answer.columns.numbers_C, answer.columns.scores_C, answer.columns.revisions_C)
    assert sum(column.nbytes for column in columns) == 2096 * CANDIDATE_BYTES
    assert answer.num_bytes <= 24 * 2096


def test_the_hits_of_the_tier_are_not_kept_alive_by_a_view(setup: Setup) -> None:
    scores = np.linspace(0.9, 0.1, 4096, dtype=np.float32)
    answer = setup.maker.make(ColdHits([PostId("a")], scores[:1], np.ones(1, np.int64), BEFORE_10), 2)
    assert answer.columns.scores_C.base is None
