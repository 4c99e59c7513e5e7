"""What an event does to a member row: (row, event, now) -> row, hops, whether to publish. Pure functions."""

from msgspec.structs import replace

from contexts.rows import Hop, MemberChange, MemberRow, MemberState, Profile, open_window_end_us
from contexts.settings import ContextRules
from schemas.contexts import HistoryEntry, MemberContext
from schemas.events import EventOrder, MemberDeleted, MemberEvent, MemberUpdated
from schemas.hops import MemberAction, PostActivity
from schemas.ids import Micros, PostId, Revision


def apply_member_event(row: MemberRow, event: MemberEvent, order: EventOrder) -> MemberChange:
    """An event that is not newer than the newest one applied changes nothing."""
    if row.state.order is not None and order <= row.state.order:
        return MemberChange(row, skipped_because="stale-member-event")
    return _delete(row, order) if isinstance(event, MemberDeleted) else _update(row, event, order)


def apply_member_action(row: MemberRow, action: MemberAction, now_us: Micros, rules: ContextRules) -> MemberChange:
    """Actions of a deleted member are skipped until a newer member.updated comes; those up to the deletion always."""
    state = row.state
    if state.deleted or action.at_us <= state.deleted_at_us:
        return _skip(row, action)
    if action.action == "waits":
        return _remember_waiting_post(row, action, rules)
    if action.action == "impression":
        return _remember_seen_post(row, action.post_id, now_us, rules)
    changed = _apply_action(row, action, rules)
    if changed is row:
        return MemberChange(
            row, skipped_because="nothing-to-forget" if action.action == "forget" else "repeated-action"
        )
    due_us = open_window_end_us(state.history_published_us, rules.history_window_s, now_us)
    state = replace(
        state,
        as_of_us=Micros(max(state.as_of_us, action.at_us)),
        history_changed=True,
        publish_due_us=state.publish_due_us or due_us,
    )
    return MemberChange(replace(changed, state=state), publish=due_us is None)


def publish_member(row: MemberRow, now_us: Micros, rules: ContextRules) -> tuple[MemberRow, MemberContext]:
    """The row at its next revision, and its context. If the history has changed, its window opens now."""
    state = replace(
        row.state,
        revision=Revision(row.state.revision + 1),
        history_changed=False,
        history_published_us=now_us if row.state.history_changed else row.state.history_published_us,
        publish_due_us=None,
    )
    return replace(row, state=state), _context(row, state, rules)


def _context(row: MemberRow, state: MemberState, rules: ContextRules) -> MemberContext:
    if state.deleted:
        return MemberContext(row.member_id, state.revision, state.as_of_us, deleted=True)
    profile = row.profile or Profile(None, [], None, None)
    return MemberContext(
        row.member_id,
        state.revision,
        state.as_of_us,
        headline=profile.headline,
        skills=profile.skills,
        industry=profile.industry,
        language=profile.language,
        history=row.history.entries(),
        acted=[PostId(post_id) for post_id in row.acted.newest(rules.acted_ids)],
        hidden=[PostId(post_id) for post_id in row.hidden.newest(rules.hidden_ids)],
        seen=[PostId(post_id) for post_id in row.seen.newest(rules.seen)],
    )


def _delete(row: MemberRow, order: EventOrder) -> MemberChange:
    """Leaves only the tombstone. Posts in whose rows an action of the member may wait are told to erase it."""
    state = MemberState(
        order=order,
        deleted=True,
        deleted_at_us=Micros(order.at_us),
        revision=row.state.revision,
        as_of_us=Micros(max(row.state.as_of_us, order.at_us)),
    )
    hops = tuple(_erase_hop(row, PostId(post_id), Micros(order.at_us)) for post_id in row.waiting_posts.newest())
    return MemberChange(MemberRow(row.member_id, state), hops, publish=True)


def _update(row: MemberRow, event: MemberUpdated, order: EventOrder) -> MemberChange:
    state = replace(row.state, order=order, deleted=False, as_of_us=Micros(max(row.state.as_of_us, order.at_us)))
    profile = Profile(event.headline, event.skills, event.industry, event.language)
    return MemberChange(replace(row, state=state, profile=profile), publish=True)


def _remember_waiting_post(row: MemberRow, action: MemberAction, rules: ContextRules) -> MemberChange:
    """An action must not wait in the row of a post that this row does not remember, or a deletion of the member would
    miss it. So the posts that are forgotten here are told to give up what still waits in their rows."""
    waiting_posts = row.waiting_posts.append(action.post_id, rules.waiting_posts)
    forgotten = row.waiting_posts.dropped_until(waiting_posts)
    refusals = tuple(Hop(post_id, PostActivity(row.member_id, "refuse", action.at_us)) for post_id in forgotten)
    return MemberChange(replace(row, waiting_posts=waiting_posts), refusals)


def _remember_seen_post(row: MemberRow, post_id: PostId, now_us: Micros, rules: ContextRules) -> MemberChange:
    """Impressions come in numbers, so they are never published at once but together, at the end of a window. They do
    not open the history's window, which would delay the next like, and they leave `as_of` alone: the prompt stays the
    same, and so does the vector."""
    seen = row.seen.append(post_id, rules.seen)
    if seen is row.seen:
        return MemberChange(row, skipped_because="repeated-action")
    window_us = int(rules.history_window_s * 1_000_000)
    state = replace(row.state, publish_due_us=row.state.publish_due_us or Micros(now_us + window_us))
    return MemberChange(replace(row, seen=seen, state=state))


def _skip(row: MemberRow, action: MemberAction) -> MemberChange:
    hops = (_erase_hop(row, action.post_id, action.at_us),) if action.action == "waits" else ()
    return MemberChange(row, hops, skipped_because="action-of-deleted-member")


def _erase_hop(row: MemberRow, post_id: PostId, at_us: Micros) -> Hop:
    return Hop(post_id, PostActivity(row.member_id, "erase", at_us))


def _apply_action(row: MemberRow, action: MemberAction, rules: ContextRules) -> MemberRow:
    """Returns the row itself when the action changes nothing."""
    if action.action == "forget":
        history = row.history.without(action.post_id)
        return row if history is row.history else replace(row, history=history)
    if action.action == "hide":
        hidden = row.hidden.append(action.post_id, rules.hidden_ids)
        return row if hidden is row.hidden else replace(row, hidden=hidden)
    entry = HistoryEntry(action.post_id, action.action, action.at_us, action.text)
    history = row.history.add(entry, rules.history_entries)
    acted = row.acted if action.action == "wrote" else row.acted.append(action.post_id, rules.acted_ids)
    unchanged = history is row.history and acted is row.acted
    return row if unchanged else replace(row, history=history, acted=acted)
