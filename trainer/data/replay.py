"""Replays a feed's events: what the pipeline knew of posts and members at a moment.

Rows are made by the same functions as in the context stage, so that a member's context here is the one that the
pipeline would have published. Owns the order in which these functions are called; knows no files and no models.
"""

from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event
from contexts.rows import Hop, MemberRow, PostRow
from contexts.settings import ContextRules
from schemas.contexts import MemberContext
from schemas.events import Activity, PostEvent
from schemas.hops import MemberAction
from schemas.ids import MemberId, Micros, PostId
from trainer.data.feed import Feed, TimedEvent, post_activity


class Replay:
    """Post and member rows, changed event by event."""

    def __init__(self, rules: ContextRules, *, wrote: bool = True) -> None:
        """`wrote`: a member's own posts are in its history too."""
        self.posts: dict[str, PostRow] = {}
        self.members: dict[str, MemberRow] = {}
        self._rules = rules
        self._wrote = wrote

    def apply(self, timed: TimedEvent) -> None:
        event, at_us = timed.event, timed.at_us
        if isinstance(event, Activity):
            row = self.posts.get(event.post_id) or PostRow(PostId(event.post_id))
            change = apply_activity(row, post_activity(at_us, event), at_us, self._rules)
        elif isinstance(event, PostEvent):
            row = self.posts.get(event.post_id) or PostRow(PostId(event.post_id))
            change = apply_post_event(row, event, timed.order, at_us, self._rules)
        else:
            member = apply_member_event(self.member(event.member_id), event, timed.order)
            self.members[event.member_id] = member.row
            return
        self.posts[event.post_id] = change.row
        for hop in change.hops:
            self._apply_hop(hop, at_us)

    def member(self, member_id: str) -> MemberRow:
        return self.members.get(member_id) or MemberRow(MemberId(member_id))

    def context(self, member_id: str, as_of_us: Micros) -> MemberContext:
        return publish_member(self.member(member_id), as_of_us, self._rules)[1]

    def _apply_hop(self, hop: Hop, at_us: Micros) -> None:
        action = hop.payload
        if isinstance(action, MemberAction) and (self._wrote or action.action != "wrote"):
            row = apply_member_action(self.member(hop.entity_id), action, at_us, self._rules).row
            self.members[hop.entity_id] = row


def replay_until(feed: Feed, cut_us: Micros, *, wrote: bool = True) -> Replay:
    """What was known just before the cut."""
    replay = Replay(feed.rules, wrote=wrote)
    for timed in feed.before(cut_us):
        replay.apply(timed)
    return replay
