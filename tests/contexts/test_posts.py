from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexts.id_log import IDS_IN_CHUNK
from contexts.posts import expire_waiting, publish_post, waiting_since_us
from contexts.rows import Hop, PostRow
from contexts.settings import ContextRules
from schemas.canaries import CANARY_AUTHOR, canary_id
from schemas.contexts import PostContext
from schemas.events import PostCreated, PostEvent
from schemas.hops import MemberAction
from schemas.ids import MemberId, PostId
from tests.kit.data.event_order import newest
from tests.kit.data.rows import (
    POST,
    RULES,
    moment,
    post_activity,
    post_after,
    post_created,
    post_deleted,
    post_step,
    post_updated,
    us,
)

DAY_S = 86_400


def text_of(row: PostRow) -> str | None:
    return row.body.text if row.body is not None else None


def context_of(row: PostRow, now_s: float = 100) -> PostContext:
    return publish_post(row, us(now_s))[1]


# Few times, so that the digest often decides.
post_events = st.lists(
    st.one_of(
        st.builds(post_created, st.integers(0, 2), st.sampled_from(["a", "b"])),
        st.builds(post_updated, st.integers(0, 2), st.sampled_from(["a", "b"])),
        st.builds(post_deleted, st.integers(0, 2)),
    ),
    min_size=1,
    max_size=8,
)


@given(post_events.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events + events[:2]))))
def test_any_order_and_any_repeats_end_in_the_newest(case: tuple[list[PostEvent], list[PostEvent]]) -> None:
    events, sent = case
    row = post_after(*sent)
    assert text_of(row) == newest([msgspec.json.encode(event) for event in events]).get("text")


def test_a_canary_is_in_no_history() -> None:
    """Its author gets neither a member's row nor a context."""
    canary = canary_id("node", 0)
    event = PostCreated(post_id=canary, author_id=CANARY_AUTHOR, text="text", created_at=moment(1))
    created = post_step(PostRow(canary), event)
    deleted = post_step(created.row, post_deleted(2))
    assert (created.publish, created.hops) == (True, ())
    assert (deleted.publish, deleted.hops) == (True, ())


def test_created_updated_and_deleted_of_one_time_are_ordered_so() -> None:
    events: list[PostEvent] = [post_created(5), post_updated(5, "later"), post_deleted(5)]
    for order in permutations(events):
        assert post_after(*order).body is None
    assert text_of(post_after(post_created(5), post_updated(5, "later"))) == "later"
    assert text_of(post_after(post_updated(5, "later"), post_created(5))) == "later"


def test_a_stale_event_changes_nothing_and_is_noted() -> None:
    row = post_after(post_created(1), post_deleted(5))
    change = post_step(row, post_updated(4))
    assert change.row is row
    assert (change.skipped_because, change.publish, change.hops) == ("stale-post-event", False, ())


def test_a_delete_of_a_post_never_seen_is_published_and_guards() -> None:
    change = post_step(POST, post_deleted(5))
    assert change.publish
    context = context_of(change.row)
    assert (context.deleted, context.revision, context.as_of_us, context.text) == (True, 1, us(5), "")
    assert text_of(post_step(change.row, post_created(1)).row) is None


def test_a_create_after_the_delete_brings_the_post_back() -> None:
    change = post_step(post_after(post_created(1, "old"), post_deleted(5)), post_created(6, "again"))
    assert change.publish
    assert text_of(change.row) == "again"
    assert change.hops == (Hop("author", MemberAction(PostId("p"), "wrote", us(6), "again")),)


def test_an_update_without_a_create_makes_the_post() -> None:
    change = post_step(POST, post_updated(9, "made", created_at_s=2))
    assert change.publish
    context = context_of(change.row)
    assert (context.text, context.created_at_us, context.as_of_us) == ("made", us(2), us(9))
    assert change.hops == (Hop("author", MemberAction(PostId("p"), "wrote", us(2), "made")),)


def test_a_post_goes_into_its_authors_history_once() -> None:
    row = post_after(post_created(1))
    assert post_step(row, post_updated(2)).hops == ()
    assert post_step(row, post_updated(2)).publish


def test_a_history_holds_at_most_so_many_characters() -> None:
    (hop,) = post_step(POST, post_created(1, "x" * 1000)).hops
    assert hop.payload == MemberAction(PostId("p"), "wrote", us(1), "x" * 200)


@pytest.mark.parametrize("action", ["click", "like", "comment", "share", "follow"])
def test_positive_activity_is_counted_and_sent_to_the_member(action: str) -> None:
    change = post_step(post_after(post_created(0)), post_activity(action, 3))
    assert change.row.state.counts == {action: 1}
    assert change.hops == (Hop("m", MemberAction(PostId("p"), action, us(3), "text")),)
    assert change.row.state.as_of_us == us(3)


@pytest.mark.parametrize("action", ["view", "impression"])
def test_other_activity_is_only_counted(action: str) -> None:
    change = post_step(post_after(post_created(0)), post_activity(action))
    assert (change.row.state.counts, change.hops) == ({action: 1}, ())


@pytest.mark.parametrize(("dwell_ms", "positive"), [(9_999, False), (10_000, True), (None, False)])
def test_a_dwell_is_positive_from_the_setting_on(dwell_ms: int | None, positive: bool) -> None:
    change = post_step(post_after(post_created(0)), post_activity("dwell", dwell_ms=dwell_ms))
    assert bool(change.hops) == positive


def test_a_hide_goes_to_the_member_also_when_the_post_is_unknown() -> None:
    for row in (POST, post_after(post_created(0)), post_after(post_deleted(0))):
        change = post_step(row, post_activity("hide", 3))
        assert change.hops == (Hop("m", MemberAction(PostId("p"), "hide", us(3))),)


def test_an_impression_goes_to_the_member_where_the_rules_keep_seen_posts() -> None:
    for row in (POST, post_after(post_created(0)), post_after(post_deleted(0))):
        change = post_step(row, post_activity("impression", 3), rules=ContextRules(seen=5))
        assert change.hops == (Hop("m", MemberAction(PostId("p"), "impression", us(3))),)
        assert post_step(row, post_activity("impression", 3)).hops == ()


def test_activity_for_a_deleted_post_is_counted_and_makes_no_history() -> None:
    change = post_step(post_after(post_created(0), post_deleted(2)), post_activity("like"))
    assert (change.row.state.counts, change.hops, change.publish) == ({"like": 1}, (), False)
    assert change.skipped_because == "activity-for-deleted-post"


# Activity before its post.


def test_positive_activity_waits_for_its_post_and_the_member_learns_of_it() -> None:
    change = post_step(POST, post_activity("like", 3))
    assert change.row.state.counts == {}
    assert change.hops == (Hop("m", MemberAction(PostId("p"), "waits", us(3))),)
    arrived = post_step(change.row, post_created(5, "here"))
    assert arrived.row.waiting_actions == ()
    assert arrived.row.state.counts == {"like": 1}
    assert [hop.payload.action for hop in arrived.hops] == ["wrote", "like"]
    assert arrived.hops[1] == Hop("m", MemberAction(PostId("p"), "like", us(3), "here"))


def test_other_activity_before_its_post_is_counted_at_once() -> None:
    assert post_after(post_activity("view"), post_activity("view")).state.counts == {"view": 2}


def test_what_waits_for_a_post_that_comes_deleted_is_counted() -> None:
    row = post_after(post_activity("like"), post_deleted(9))
    assert (row.waiting_actions, row.state.counts) == ((), {"like": 1})


def test_too_much_waiting_is_a_dead_letter_and_is_not_counted() -> None:
    rules = ContextRules(waiting_actions=2)
    row = post_after(post_activity("like", 1), post_activity("like", 2), rules=rules)
    change = post_step(row, post_activity("share", 3), rules=rules)
    assert change.row is row
    (letter,) = change.given_up
    assert (letter.post_id, letter.activity.action, letter.activity.offset) == ("p", "share", 7)
    assert "2 actions already wait" in letter.cause


def test_what_has_waited_for_seven_days_is_a_dead_letter() -> None:
    row = post_step(post_step(POST, post_activity("like"), 0).row, post_activity("share"), 10).row
    assert waiting_since_us(row) == us(0)
    change = expire_waiting(row, us(7 * DAY_S), RULES)
    assert [letter.activity.action for letter in change.given_up] == ["like"]
    assert [waiting.activity.action for waiting in change.row.waiting_actions] == ["share"]
    assert waiting_since_us(change.row) == us(10)


def test_a_clock_that_steps_back_gives_up_what_has_waited_and_nothing_else() -> None:
    row = post_step(post_step(POST, post_activity("like"), 50).row, post_activity("share"), 10).row
    assert waiting_since_us(row) == us(10)
    change = expire_waiting(row, us(7 * DAY_S + 10), RULES)
    assert [letter.activity.action for letter in change.given_up] == ["share"]
    assert [waiting.activity.action for waiting in change.row.waiting_actions] == ["like"]


def test_what_waits_by_a_deleted_member_is_erased_up_to_the_deletion() -> None:
    row = post_after(post_activity("like", 1), post_activity("like", 8), post_activity("like", 1, member="other"))
    erased = post_step(row, post_activity("erase", 5)).row
    remaining = [(waiting.activity.member_id, waiting.activity.at_us) for waiting in erased.waiting_actions]
    assert remaining == [("m", us(8)), ("other", us(1))]
    assert post_step(POST, post_activity("erase", 5)).row is POST


# Deletes.


def test_a_deleted_post_is_taken_out_of_the_histories_it_was_sent_to() -> None:
    row = post_after(
        post_created(0), post_activity("like", 1, "m1"), post_activity("share", 2, "m2"), post_activity("view", 3, "m3")
    )
    change = post_step(row, post_deleted(9))
    assert {hop.entity_id for hop in change.hops} == {"author", "m1", "m2"}
    assert {hop.payload for hop in change.hops} == {MemberAction(PostId("p"), "forget", us(9))}
    assert (change.row.body, change.row.recipients.newest()) == (None, [])
    assert post_step(change.row, post_deleted(10)).hops == ()


def test_a_post_remembers_the_last_members_it_was_sent_to() -> None:
    rules = ContextRules(recipients=150)
    row = post_after(post_created(0), *(post_activity("like", n, f"m{n}") for n in range(1, 1000)), rules=rules)
    forgetting = {hop.entity_id for hop in post_step(row, post_deleted(9000), rules=rules).hops}
    assert {"author", *(f"m{n}" for n in range(850, 1000))} <= forgetting
    assert len(forgetting) <= 1 + 150 + 2 * IDS_IN_CHUNK


# Publishing.


def test_post_events_publish_at_once() -> None:
    row = post_after(post_created(0))
    for event in (post_updated(1), post_deleted(2)):
        change = post_step(row, event, now_s=0)
        assert change.publish
        row = publish_post(change.row, us(0))[0]
    assert row.state.revision == 2


def test_counts_publish_in_a_new_bucket_at_most_once_in_sixty_seconds() -> None:
    row, _ = publish_post(post_after(post_created(0)), us(100))
    change = post_step(row, post_activity("view"), now_s=110)
    assert (change.publish, change.row.state.publish_due_us) == (False, us(160))
    more = post_step(change.row, post_activity("view"), now_s=150)
    assert (more.publish, more.row.state.publish_due_us) == (False, us(160))
    row, context = publish_post(more.row, us(160))
    assert (context.counts, row.state.publish_due_us) == ({"view": 2}, None)
    assert post_step(row, post_activity("view"), now_s=500).publish


def test_counts_within_their_bucket_do_not_publish() -> None:
    row, _ = publish_post(post_after(post_created(0), *[post_activity("view")] * 3), us(100))
    change = post_step(row, post_activity("view"), now_s=500)
    assert (change.publish, change.row.state.publish_due_us) == (False, None)
    assert post_step(change.row, post_activity("view"), now_s=500).publish


def test_a_clock_that_went_back_holds_counts_back_for_one_window_only() -> None:
    row, _ = publish_post(post_after(post_created(0)), us(10_000))
    assert post_step(row, post_activity("view"), now_s=100).row.state.publish_due_us == us(160)


def test_counts_of_what_is_not_there_are_not_published() -> None:
    for row in (POST, post_after(post_deleted(0))):
        change = post_step(row, post_activity("view"), now_s=500)
        assert (change.publish, change.row.state.publish_due_us) == (False, None)


def test_a_context_has_everything_and_its_revision_grows() -> None:
    row = post_after(post_created(0, "text"), post_activity("view", 30), post_activity("like", 20))
    row, first = publish_post(row, us(100))
    assert first == PostContext(
        PostId("p"),
        first.revision,
        us(30),
        author_id=MemberId("author"),
        text="text",
        created_at_us=us(0),
        counts={"view": 1, "like": 1},
    )
    assert (first.revision, context_of(row).revision) == (1, 2)
