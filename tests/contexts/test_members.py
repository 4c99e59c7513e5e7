from itertools import permutations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contexts.members import publish_member
from contexts.rows import Hop, MemberRow
from contexts.settings import ContextRules
from schemas.contexts import HistoryEntry, MemberContext
from schemas.events import MemberDeleted, MemberEvent, event_order
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, PostId
from tests.kit.data.rows import (
    MEMBER,
    RULES,
    member_action,
    member_after,
    member_deleted,
    member_step,
    member_updated,
    us,
)


def context_of(row: MemberRow, now_s: float = 100) -> MemberContext:
    return publish_member(row, us(now_s), RULES)[1]


def posts_of(row: MemberRow) -> list[str]:
    return [entry.post_id for entry in row.history.entries()]


member_events = st.lists(
    st.one_of(
        st.builds(member_updated, st.integers(0, 9), st.sampled_from(["a", "b"])),
        st.builds(member_deleted, st.integers(0, 9)),
    ),
    min_size=1,
    max_size=6,
)


@given(member_events.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events + events[:2]))))
def test_any_order_and_any_repeats_end_in_the_newest(case: tuple[list[MemberEvent], list[MemberEvent]]) -> None:
    events, sent = case
    newest = max(events, key=lambda event: event_order(event, msgspec.json.encode(event)))
    row = member_after(*sent)
    assert row.state.deleted == isinstance(newest, MemberDeleted)
    headline = None if isinstance(newest, MemberDeleted) else newest.headline
    assert (row.profile.headline if row.profile else None) == headline


@given(st.permutations([member_action("like", f"p{n}", n) for n in range(1, 8)]))
def test_a_history_does_not_depend_on_the_order_of_arrival(actions: list[MemberAction]) -> None:
    assert posts_of(member_after(*actions)) == [f"p{n}" for n in range(1, 8)]


def test_a_profile_is_published_at_once() -> None:
    change = member_step(MEMBER, member_updated(3))
    assert change.publish
    context = context_of(change.row)
    assert (context.headline, context.skills, context.as_of_us, context.revision) == ("baker", ["bread"], us(3), 1)


def test_a_member_without_a_profile_has_a_context_of_its_history() -> None:
    change = member_step(MEMBER, member_action("like", "p1", 4, "hello"))
    assert change.publish
    context = context_of(change.row)
    assert context.history == [HistoryEntry(PostId("p1"), "like", us(4), "hello")]
    assert (context.headline, context.acted, context.as_of_us) == (None, ["p1"], us(4))


def test_what_the_member_wrote_is_history_and_not_acted_on() -> None:
    context = context_of(member_after(member_action("wrote", "p1"), member_action("share", "p2", 2)))
    assert [entry.action for entry in context.history] == ["wrote", "share"]
    assert context.acted == ["p2"]


def test_a_hidden_post_is_kept_for_filters_and_is_no_history() -> None:
    context = context_of(member_after(member_action("hide", "p1")))
    assert (context.hidden, context.history, context.acted) == (["p1"], [], [])


def test_an_equal_action_is_in_the_history_once() -> None:
    row = member_after(member_action("like", "p1", 4))
    change = member_step(row, member_action("like", "p1", 4))
    assert change.row is row
    assert (change.publish, change.skipped_because) == (False, "repeated-action")
    assert (
        len(
            posts_of(
                member_after(
                    member_action("like", "p1", 4), member_action("like", "p1", 5), member_action("share", "p1", 4)
                )
            )
        )
        == 3
    )


def test_a_history_holds_the_newest_fifty() -> None:
    row = member_after(*(member_action("like", f"p{n}", n) for n in range(120)))
    assert posts_of(row) == [f"p{n}" for n in range(70, 120)]
    assert len(row.acted.newest()) == 120


def test_a_member_keeps_the_last_ids_acted_on_and_hidden() -> None:
    rules = ContextRules(acted_ids=5, hidden_ids=3)
    actions = [member_action(action, f"p{n}", n) for n in range(300) for action in ("like", "hide")]
    _, context = publish_member(member_after(*actions, rules=rules), us(0), rules)
    assert context.acted == [f"p{n}" for n in range(295, 300)]
    assert context.hidden == [f"p{n}" for n in range(297, 300)]


def test_the_posts_seen_last_are_published_together_at_the_end_of_a_window() -> None:
    rules = ContextRules(seen=3, history_window_s=10)
    row = member_after(member_action("like", "p1", 4), rules=rules)
    row, before = publish_member(row, us(90), rules)
    for n in range(300):
        change = member_step(row, member_action("impression", f"p{n}", 20 + n), now_s=100, rules=rules)
        assert not change.publish
        row = change.row
    assert row.state.publish_due_us == us(110)
    row, context = publish_member(row, us(110), rules)
    assert context.seen == [f"p{n}" for n in range(297, 300)]
    assert row.state.publish_due_us is None
    # The prompt is made of all the other fields but the lists of ids, so the vector stays the same.
    assert (context.as_of_us, context.history) == (before.as_of_us, before.history)


def test_a_like_is_not_delayed_by_what_the_member_was_shown() -> None:
    rules = ContextRules(seen=3, history_window_s=10)
    row = member_after(member_action("impression", "p1", 1), rules=rules)
    row, _ = publish_member(row, us(110), rules)
    assert member_step(row, member_action("like", "p1", 111), now_s=111, rules=rules).publish


def test_the_same_impression_again_changes_nothing() -> None:
    rules = ContextRules(seen=3)
    row = member_after(member_action("impression", "p1", 1), rules=rules)
    change = member_step(row, member_action("impression", "p1", 2), rules=rules)
    assert change.row is row
    assert change.skipped_because == "repeated-action"


def test_a_deleted_post_leaves_the_history() -> None:
    row = member_after(member_action("like", "p1", 1), member_action("like", "p2", 2), member_action("share", "p1", 3))
    change = member_step(row, member_action("forget", "p1", 9))
    assert posts_of(change.row) == ["p2"]
    assert change.publish
    assert member_step(change.row, member_action("forget", "p1", 9)).skipped_because == "nothing-to-forget"


# Windows.


def test_a_history_change_waits_for_the_end_of_the_window_of_the_last() -> None:
    row, _ = publish_member(member_after(member_action("like", "p1"), now_s=100), us(100), RULES)
    change = member_step(row, member_action("like", "p2", 2), now_s=104)
    assert (change.publish, change.row.state.publish_due_us) == (False, us(110))
    more = member_step(change.row, member_action("like", "p3", 3), now_s=109)
    assert (more.publish, more.row.state.publish_due_us) == (False, us(110))
    row, context = publish_member(more.row, us(110), RULES)
    assert (len(context.history), row.state.publish_due_us) == (3, None)
    assert member_step(row, member_action("like", "p4", 4), now_s=119).row.state.publish_due_us == us(120)
    assert member_step(row, member_action("like", "p4", 4), now_s=120).publish


def test_a_profile_opens_no_window_for_the_history() -> None:
    row, _ = publish_member(member_after(member_updated(1)), us(100), RULES)
    assert member_step(row, member_action("like"), now_s=101).publish


def test_a_profile_carries_what_waits_in_the_window() -> None:
    row, _ = publish_member(member_after(member_action("like", "p1"), now_s=100), us(100), RULES)
    row = member_step(row, member_action("like", "p2", 2), now_s=104).row
    change = member_step(row, member_updated(5), now_s=105)
    row, context = publish_member(change.row, us(105), RULES)
    assert change.publish
    assert (len(context.history), row.state.publish_due_us, row.state.history_published_us) == (2, None, us(105))


# Deletion.


def test_a_deleted_member_leaves_only_a_tombstone() -> None:
    row = member_after(
        member_updated(1),
        member_action("like", "p1", 2),
        member_action("hide", "p2", 3),
        member_action("waits", "p3", 4),
        member_action("impression", "p4", 4),
        rules=ContextRules(seen=3),
    )
    row, _ = publish_member(row, us(100), RULES)
    change = member_step(row, member_deleted(9))
    assert change.publish
    assert change.hops == (Hop("p3", PostActivity(MemberId("m"), "erase", us(9))),)
    _, context = publish_member(change.row, us(100), RULES)
    assert context == MemberContext(MemberId("m"), context.revision, us(9), deleted=True)
    assert context.revision == 2
    assert change.row == MemberRow(MemberId("m"), change.row.state)


def test_a_deletion_of_a_member_never_seen_is_published() -> None:
    change = member_step(MEMBER, member_deleted(3))
    assert change.publish
    assert context_of(change.row).deleted


def test_actions_of_a_deleted_member_are_skipped_until_a_newer_profile() -> None:
    row = member_after(member_updated(1), member_deleted(5))
    change = member_step(row, member_action("like", "p1", 7))
    assert change.row is row
    assert (change.publish, change.skipped_because) == (False, "action-of-deleted-member")
    back = member_step(row, member_updated(8)).row
    assert posts_of(member_step(back, member_action("like", "p1", 9)).row) == ["p1"]


def test_nothing_from_before_the_deletion_comes_back_with_the_member() -> None:
    row = member_after(member_action("like", "p0", 2), member_deleted(5), member_updated(8))
    assert (
        posts_of(
            member_after(
                member_action("like", "p0", 2), member_deleted(5), member_updated(8), member_action("like", "p1", 4)
            )
        )
        == []
    )
    assert member_step(row, member_action("like", "p1", 5)).row is row


def test_what_waits_by_a_deleted_member_is_erased_when_it_is_heard_of() -> None:
    change = member_step(member_after(member_deleted(5)), member_action("waits", "p1", 7))
    assert change.hops == (Hop("p1", PostActivity(MemberId("m"), "erase", us(7))),)
    assert member_step(MEMBER, member_action("waits", "p1", 7)).publish is False


def test_deleted_and_updated_of_one_time_are_ordered_so() -> None:
    events: list[MemberEvent] = [member_updated(5), member_deleted(5)]
    for order in permutations(events):
        assert member_after(*order).state.deleted
