"""Replays a feed's events: what the pipeline knew of posts and members at a moment, and what it had published of them.

Rows are made by the same functions as in the context stage, so that a member's context here is the one that the
pipeline would have published. Owns the order in which these functions are called; knows no files and no models.
"""

from heapq import heappop, heappush
from typing import Final

from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event, expire_waiting, publish_post
from contexts.rows import Hop, MemberChange, MemberRow, PostChange, PostRow
from contexts.settings import ContextRules
from schemas.contexts import MemberContext, PostContext
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
            activity = post_activity(at_us, event)
            self._keep_post(apply_activity(self._post(event.post_id), activity, at_us, self._rules), at_us)
        elif isinstance(event, PostEvent):
            row = expire_waiting(self._post(event.post_id), at_us, self._rules).row
            self._keep_post(apply_post_event(row, event, timed.order, at_us, self._rules), at_us)
        else:
            self._keep_member(apply_member_event(self.member(event.member_id), event, timed.order), at_us)

    def member(self, member_id: str) -> MemberRow:
        return self.members.get(member_id) or MemberRow(MemberId(member_id))

    def context(self, member_id: str, as_of_us: Micros) -> MemberContext:
        return publish_member(self.member(member_id), as_of_us, self._rules)[1]

    def _post(self, post_id: str) -> PostRow:
        return self.posts.get(post_id) or PostRow(PostId(post_id))

    def _keep_post(self, change: PostChange, at_us: Micros) -> None:
        self.posts[change.row.post_id] = change.row
        for hop in change.hops:
            self._apply_hop(hop, at_us)

    def _keep_member(self, change: MemberChange, at_us: Micros) -> None:
        self.members[change.row.member_id] = change.row
        for hop in change.hops:
            self._apply_hop(hop, at_us)

    def _apply_hop(self, hop: Hop, at_us: Micros) -> None:
        action = hop.payload
        if not isinstance(action, MemberAction):
            self._keep_post(apply_activity(self._post(hop.entity_id), action, at_us, self._rules), at_us)
        elif self._wrote or action.action != "wrote":
            self._keep_member(apply_member_action(self.member(hop.entity_id), action, at_us, self._rules), at_us)


_POST: Final = "post"
_MEMBER: Final = "member"


class PublishingReplay(Replay):
    """Also publishes, when the context stage would: at once, or when a delayed publication is due. The clock is the
    time of the events, each of which is a batch of its own.

    The ids that contexts carry for filters are left out. No prompt holds them, and they are most of a row.
    """

    def __init__(self, rules: ContextRules) -> None:
        super().__init__(rules.model_copy(update={"acted_ids": 0, "hidden_ids": 0, "seen": 0}))
        self.post_contexts: dict[str, PostContext] = {}
        """The newest published context of each post."""
        self._member_rows: dict[str, MemberRow] = {}
        """Each member's row just before its newest publication. Rows share their parts, and so take less room than
        contexts."""
        self._due: list[tuple[Micros, str, str]] = []
        """A heap of when, kind and id. An entry is of use only while the row still says the same time."""

    def apply(self, timed: TimedEvent) -> None:
        self.publish_due(timed.at_us)
        super().apply(timed)

    def publish_due(self, until_us: Micros) -> None:
        """Publishes what is due up to this moment; `apply` does so before each event."""
        while self._due and self._due[0][0] <= until_us:
            due_us, kind, entity_id = heappop(self._due)
            if kind == _POST and self._post(entity_id).state.publish_due_us == due_us:
                self._publish_post(entity_id, due_us)
            elif kind == _MEMBER and self.member(entity_id).state.publish_due_us == due_us:
                self._publish_member(entity_id, due_us)

    def published_member(self, member_id: str) -> MemberRow | None:
        """For `member_context`: what was published last of the member. None: nothing yet."""
        return self._member_rows.get(member_id)

    def member_context(self, published: MemberRow) -> MemberContext:
        return publish_member(published, published.state.as_of_us, self._rules)[1]

    def _keep_post(self, change: PostChange, at_us: Micros) -> None:
        was_due_us = self._post(change.row.post_id).state.publish_due_us
        super()._keep_post(change, at_us)
        if change.publish:
            self._publish_post(change.row.post_id, at_us)
        elif (due_us := change.row.state.publish_due_us) is not None and due_us != was_due_us:
            heappush(self._due, (due_us, _POST, change.row.post_id))

    def _keep_member(self, change: MemberChange, at_us: Micros) -> None:
        was_due_us = self.member(change.row.member_id).state.publish_due_us
        super()._keep_member(change, at_us)
        if change.publish:
            self._publish_member(change.row.member_id, at_us)
        elif (due_us := change.row.state.publish_due_us) is not None and due_us != was_due_us:
            heappush(self._due, (due_us, _MEMBER, change.row.member_id))

    def _publish_post(self, post_id: str, at_us: Micros) -> None:
        self.posts[post_id], self.post_contexts[post_id] = publish_post(self._post(post_id), at_us)

    def _publish_member(self, member_id: str, at_us: Micros) -> None:
        row = self.member(member_id)
        self._member_rows[member_id] = row
        self.members[member_id] = publish_member(row, at_us, self._rules)[0]


def replay_until(feed: Feed, cut_us: Micros, *, wrote: bool = True) -> Replay:
    """What was known just before the cut."""
    replay = Replay(feed.rules, wrote=wrote)
    for timed in feed.before(cut_us):
        replay.apply(timed)
    return replay
