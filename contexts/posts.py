"""What an event does to a post row: (row, event, now) -> row, hops, whether to publish. Pure functions.

Post events and activity both change a post row. Decides when a row is due; that it is published at most once a batch is
the stage's business.
"""

from msgspec.structs import replace

from contexts.actions import is_positive
from contexts.count_buckets import bucket
from contexts.rows import (
    GivenUpAction,
    Hop,
    PostBody,
    PostChange,
    PostRow,
    PostState,
    WaitingAction,
    open_window_end_us,
)
from contexts.settings import ContextRules
from schemas.canaries import is_reserved
from schemas.contexts import PostContext
from schemas.events import EventOrder, PostCreated, PostDeleted, PostEvent, PostUpdated
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, Micros, Revision
from schemas.times import to_micros


def apply_post_event(
    row: PostRow, event: PostEvent, order: EventOrder, now_us: Micros, rules: ContextRules
) -> PostChange:
    """An event that is not newer than the newest one applied changes nothing. A delete of an unknown post leaves a
    tombstone, which guards against a create that comes late."""
    if row.state.order is not None and order <= row.state.order:
        return PostChange(row, skipped_because="stale-post-event")
    row = replace(row, state=replace(row.state, order=order, as_of_us=_later(row.state.as_of_us, order.at_us)))
    return _delete_post(row) if isinstance(event, PostDeleted) else _write_post(row, event, now_us, rules)


def apply_activity(row: PostRow, activity: PostActivity, now_us: Micros, rules: ContextRules) -> PostChange:
    """A positive action that comes before its post waits in the row, and is counted when the post comes."""
    if activity.action == "erase":
        return _erase(row, activity)
    if activity.action == "refuse":
        return _refuse(row, activity, rules)
    positive = is_positive(activity, rules)
    if positive and not row.is_known:
        return _let_wait(row, activity, now_us, rules)
    row = _count(row, activity)
    hops: tuple[Hop, ...] = ()
    if activity.action == "hide" or (activity.action == "impression" and rules.seen):
        hops = (Hop(activity.member_id, MemberAction(row.post_id, activity.action, activity.at_us)),)
    elif positive and row.body is not None:
        row, hops = _send_to_history(row, activity.member_id, activity.action, activity.at_us, rules)
    state, publish = _counts_due(row, activity.action, now_us, rules)
    skipped = "activity-for-deleted-post" if row.is_known and row.body is None else ""
    row = row if state is row.state else replace(row, state=state)
    return PostChange(row, hops, publish, skipped_because=skipped)


def expire_waiting(row: PostRow, now_us: Micros, rules: ContextRules) -> PostChange:
    """Gives up the actions that have waited for `rules.waiting_s`. The row is the same object if there are none."""
    expired = [waiting for waiting in row.waiting_actions if waiting_until_us(waiting.since_us, rules) <= now_us]
    if not expired:
        return PostChange(row)
    # Not simply the first ones: after a step back of the clock the oldest may stand later.
    remaining = tuple(waiting for waiting in row.waiting_actions if waiting not in expired)
    cause = f"the post was not created within {rules.waiting_s / 86400:g} days"
    given_up = tuple(GivenUpAction(row.post_id, waiting.activity, cause) for waiting in expired)
    return PostChange(replace(row, waiting_actions=remaining), given_up=given_up)


def waiting_since_us(row: PostRow) -> Micros | None:
    """When the oldest action that waits for this post came; None if none waits."""
    return min(waiting.since_us for waiting in row.waiting_actions) if row.waiting_actions else None


def waiting_until_us(since_us: Micros, rules: ContextRules) -> Micros:
    """When an action that came at `since_us` is given up."""
    return Micros(since_us + int(rules.waiting_s * 1_000_000))


def publish_post(row: PostRow, now_us: Micros) -> tuple[PostRow, PostContext]:
    """The row at its next revision, and its context. Every publication carries the counts, so their window opens."""
    state = replace(
        row.state,
        revision=Revision(row.state.revision + 1),
        published_counts=row.state.counts,
        published_us=now_us,
        publish_due_us=None,
    )
    return replace(row, state=state), _context(row, state)


def _context(row: PostRow, state: PostState) -> PostContext:
    body = row.body
    if body is None:
        return PostContext(row.post_id, state.revision, state.as_of_us, deleted=True)
    return PostContext(
        row.post_id,
        state.revision,
        state.as_of_us,
        author_id=body.author_id,
        text=body.text,
        language=body.language,
        created_at_us=body.created_at_us,
        counts=state.counts,
    )


def _write_post(row: PostRow, event: PostCreated | PostUpdated, now_us: Micros, rules: ContextRules) -> PostChange:
    was_live = row.body is not None
    author = MemberId(event.author_id)
    body = PostBody(author, event.text, event.language, to_micros(event.created_at))
    row = replace(row, body=body)
    if was_live or is_reserved(author):
        # The author of canaries is no member, and has no history.
        return PostChange(row, publish=True)
    row, hops = _send_to_history(row, author, "wrote", body.created_at_us, rules)
    row, released = _release_waiting(row, rules)
    return PostChange(row, (*hops, *released), publish=True)


def _delete_post(row: PostRow) -> PostChange:
    """Takes the post out of the histories that hold it. Actions that waited are counted and make no history."""
    state = row.state
    at_us = Micros(state.order.at_us if state.order else state.as_of_us)
    forget = MemberAction(row.post_id, "forget", at_us)
    # The author was the first recipient, and so may have dropped out of the log: many others came later.
    author = [row.body.author_id] if row.body is not None and not is_reserved(row.body.author_id) else []
    hops = tuple(Hop(member_id, forget) for member_id in dict.fromkeys([*author, *row.recipients.newest()]))
    for waiting in row.waiting_actions:
        row = _count(row, waiting.activity)
    return PostChange(PostRow(row.post_id, row.state), hops, publish=True)


def _release_waiting(row: PostRow, rules: ContextRules) -> tuple[PostRow, list[Hop]]:
    """Counts the actions that waited for this post, and sends them on to their members."""
    waiting_actions, hops = row.waiting_actions, list[Hop]()
    row = replace(row, waiting_actions=())
    for activity in (waiting.activity for waiting in waiting_actions):
        row = _count(row, activity)
        row, sent = _send_to_history(row, activity.member_id, activity.action, activity.at_us, rules)
        hops += sent
    return row, hops


def _send_to_history(
    row: PostRow, member_id: MemberId, action: str, at_us: Micros, rules: ContextRules
) -> tuple[PostRow, tuple[Hop, ...]]:
    """The hop that adds this post to the member's history. The row remembers the member as a recipient."""
    text = row.body.text[: rules.history_text_chars] if row.body is not None else ""
    recipients = row.recipients.append(member_id, rules.recipients)
    row = row if recipients is row.recipients else replace(row, recipients=recipients)
    return row, (Hop(member_id, MemberAction(row.post_id, action, at_us, text)),)


def _count(row: PostRow, activity: PostActivity) -> PostRow:
    counts = {**row.state.counts, activity.action: row.state.counts.get(activity.action, 0) + 1}
    as_of_us = _later(row.state.as_of_us, activity.at_us)
    return replace(row, state=replace(row.state, counts=counts, as_of_us=as_of_us))


def _counts_due(row: PostRow, action: str, now_us: Micros, rules: ContextRules) -> tuple[PostState, bool]:
    """The state with the due time of its counts, and whether to publish them now."""
    state = row.state
    if row.body is None or bucket(state.counts[action]) <= bucket(state.published_counts.get(action, 0)):
        return state, False
    due_us = open_window_end_us(state.published_us, rules.counts_window_s, now_us)
    if due_us is None or state.publish_due_us is not None:
        return state, due_us is None
    return replace(state, publish_due_us=due_us), False


def _let_wait(row: PostRow, activity: PostActivity, now_us: Micros, rules: ContextRules) -> PostChange:
    """The member's row is told, so that a deletion of the member finds the action here."""
    if len(row.waiting_actions) >= rules.waiting_actions:
        cause = f"the post is not created yet and {rules.waiting_actions} actions already wait for it"
        return PostChange(row, given_up=(GivenUpAction(row.post_id, activity, cause),))
    waiting_actions = (*row.waiting_actions, WaitingAction(activity, now_us))
    hop = Hop(activity.member_id, MemberAction(row.post_id, "waits", activity.at_us))
    return PostChange(replace(row, waiting_actions=waiting_actions), (hop,))


def _erase(row: PostRow, erase: PostActivity) -> PostChange:
    """Erases what waits here by a deleted member. The member's row has forgotten this post with the deletion; if
    newer actions of the member still wait here, it is told again."""
    remaining = tuple(waiting for waiting in row.waiting_actions if not _is_erased(waiting.activity, erase))
    newer_us = [waiting.activity.at_us for waiting in remaining if waiting.activity.member_id == erase.member_id]
    hops = (Hop(erase.member_id, MemberAction(row.post_id, "waits", max(newer_us))),) if newer_us else ()
    unchanged = len(remaining) == len(row.waiting_actions)
    return PostChange(row if unchanged else replace(row, waiting_actions=remaining), hops)


def _refuse(row: PostRow, refusal: PostActivity, rules: ContextRules) -> PostChange:
    """Gives up what waits here by a member whose row cannot remember this post any more."""
    member_id = refusal.member_id
    refused = [waiting.activity for waiting in row.waiting_actions if waiting.activity.member_id == member_id]
    if not refused:
        return PostChange(row)
    remaining = tuple(waiting for waiting in row.waiting_actions if waiting.activity.member_id != member_id)
    cause = f"the post is not created yet and the member has acted on {rules.waiting_posts} other posts that were not"
    given_up = tuple(GivenUpAction(row.post_id, activity, cause) for activity in refused)
    return PostChange(replace(row, waiting_actions=remaining), given_up=given_up)


def _is_erased(activity: PostActivity, erase: PostActivity) -> bool:
    return activity.member_id == erase.member_id and activity.at_us <= erase.at_us


def _later(first_us: int, second_us: int) -> Micros:
    return Micros(max(first_us, second_us))
