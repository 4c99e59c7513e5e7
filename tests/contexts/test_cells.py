"""Rows survive as cells, whatever happens to them, and an event stores little."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexts.cells import (
    Cells,
    Due,
    due_cell,
    due_us,
    load_member,
    load_post,
    member_cells,
    member_due,
    post_cells,
    post_due,
    read_due_cell,
)
from contexts.errors import DamagedRow
from contexts.members import publish_member
from contexts.posts import publish_post
from contexts.rows import MemberRow, PostRow
from contexts.settings import ContextRules
from schemas.events import MemberEvent, PostEvent
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, PostId
from tests.kit.data.rows import (
    MEMBER,
    POST,
    RULES,
    member_action,
    member_after,
    member_deleted,
    member_step,
    member_updated,
    post_activity,
    post_created,
    post_deleted,
    post_step,
    post_updated,
    us,
)

TIGHT = ContextRules(history_entries=5, acted_ids=3, hidden_ids=3, seen=3, waiting_actions=3, recipients=3)

post_steps = st.one_of(
    st.builds(post_created, st.integers(0, 9)),
    st.builds(post_updated, st.integers(0, 9)),
    st.builds(post_deleted, st.integers(0, 9)),
    st.builds(
        post_activity,
        st.sampled_from(["like", "view", "hide", "impression", "erase"]),
        st.integers(0, 9),
        st.sampled_from(["m1", "m2", "Ünï"]),
    ),
)
member_steps = st.one_of(
    st.builds(member_updated, st.integers(0, 30)),
    st.builds(member_deleted, st.integers(0, 5)),
    st.builds(
        member_action,
        st.sampled_from(["like", "share", "wrote", "hide", "impression", "forget", "waits"]),
        st.sampled_from([f"p{n}" for n in range(12)]),
        st.integers(0, 30),
    ),
)


class Stored:
    """What a table partition would hold."""

    def __init__(self) -> None:
        self.cells: dict[bytes, bytes] = {}

    def put(self, cells: Cells) -> None:
        for key, value in cells.items():
            if value is None:
                del self.cells[key]
            else:
                self.cells[key] = value


@given(st.lists(st.tuples(post_steps, st.booleans()), max_size=30))
def test_a_post_row_comes_back_as_it_was(steps: Sequence[tuple[PostEvent | PostActivity, bool]]) -> None:
    stored, row = Stored(), POST
    for event, publish in steps:
        after = post_step(row, event, rules=TIGHT).row
        after = publish_post(after, us(100))[0] if publish else after
        stored.put(post_cells(row, after))
        row = after
        assert load_post(PostId("p"), stored.cells.get) == row


@given(st.lists(st.tuples(member_steps, st.booleans()), max_size=40))
def test_a_member_row_comes_back_as_it_was(steps: Sequence[tuple[MemberEvent | MemberAction, bool]]) -> None:
    stored, row = Stored(), MEMBER
    for event, publish in steps:
        after = member_step(row, event, rules=TIGHT).row
        after = publish_member(after, us(100), TIGHT)[0] if publish else after
        stored.put(member_cells(row, after))
        row = after
        assert load_member(MemberId("m"), stored.cells.get) == row


def test_what_was_deleted_leaves_one_small_cell() -> None:
    stored = Stored()
    row = member_after(
        member_updated(1), *(member_action("like", f"p{n}", n) for n in range(100)), member_action("waits", "p", 100)
    )
    stored.put(member_cells(MEMBER, row))
    gone = member_step(row, member_deleted(500)).row
    stored.put(member_cells(row, gone))
    assert len(stored.cells) == 1
    assert sum(map(len, stored.cells.values())) < 150


def test_an_event_stores_little_of_a_large_row() -> None:
    row = member_after(*(member_action("like", f"post-{n}", n, "x" * 200) for n in range(2000)))
    stored = Stored()
    stored.put(member_cells(MEMBER, row))
    assert sum(map(len, stored.cells.values())) > 30_000
    change = member_cells(row, member_step(row, member_action("like", "new", 9000, "x" * 200)).row)
    assert sum(len(value or b"") for value in change.values()) < 4_000


def test_ids_that_contain_each_other_share_no_cell() -> None:
    stored = Stored()
    rows = [
        member_step(MemberRow(MemberId(name)), member_action("like", f"of {name}")).row
        for name in ("a", "aa", "a\x01", "as")
    ]
    for row in rows:
        stored.put(member_cells(MemberRow(row.member_id), row))
    assert [load_member(row.member_id, stored.cells.get) for row in rows] == rows


def test_a_row_is_due_until_it_is_published() -> None:
    row, _ = publish_post(post_step(POST, post_created(0)).row, us(100))
    assert post_due(row) is None
    waits = post_step(row, post_activity("view"), now_s=110).row
    assert post_due(waits) == Due(us(160), publishes=True)
    assert post_due(publish_post(waits, us(160))[0]) is None


def test_what_waits_in_vain_is_due_by_the_rule_of_now_and_is_no_publication() -> None:
    row = post_step(PostRow(PostId("p")), post_activity("like"), now_s=0).row
    due = post_due(row)
    assert due == Due(us(0), publishes=False)
    assert due_us(due, RULES) == us(7 * 86_400)
    assert due_us(due, ContextRules(waiting_s=60)) == us(60)
    assert due_us(Due(us(5), publishes=True), RULES) == us(5)


@pytest.mark.parametrize("due", [None, Due(us(5), publishes=True), Due(us(6), publishes=False)])
def test_a_due_cell_says_what_was_put_into_it(due: Due | None) -> None:
    assert read_due_cell(*due_cell("Ünï", due)) == ("Ünï", due)


def test_a_member_is_due_at_the_end_of_its_window() -> None:
    row, _ = publish_member(member_step(MEMBER, member_action("like")).row, us(100), RULES)
    assert member_due(row) is None
    assert member_due(member_step(row, member_action("share", at_s=2), now_s=103).row) == Due(us(110), publishes=True)


def test_a_row_with_a_missing_piece_is_refused() -> None:
    stored = Stored()
    stored.put(member_cells(MEMBER, member_after(*(member_action("like", f"p{n}", n) for n in range(20)))))
    stored.cells = {key: value for key, value in stored.cells.items() if key.startswith(b"s")}
    with pytest.raises(DamagedRow, match="'m' is missing"):
        load_member(MemberId("m"), stored.cells.get)


def test_a_row_with_a_piece_that_cannot_be_read_is_refused() -> None:
    stored = Stored()
    stored.put(
        member_cells(MEMBER, member_after(member_updated(1), *(member_action("like", f"p{n}", n) for n in range(200))))
    )
    for key, value in list(stored.cells.items()):
        stored.cells[key] = b"\xff"
        with pytest.raises(DamagedRow, match="'m' cannot be read"):
            load_member(MemberId("m"), stored.cells.get)
        stored.cells[key] = value
    assert len(stored.cells) > 3
    with pytest.raises(DamagedRow, match="'m' cannot be read"):
        read_due_cell(b"dm", b"junk")
