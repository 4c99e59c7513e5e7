"""A feed: recorded events in the order of their time, and what was known of posts and members at a moment.

Rows are made by the same functions as in the context stage, so that a member's context here is what the pipeline would
have published. Owns the order and the cut in time; refuses to know files and models.
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property
from typing import Final, NamedTuple

from contexts.actions import is_positive
from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event
from contexts.rows import Hop, MemberRow, PostRow
from contexts.settings import ContextRules
from schemas.contexts import MemberContext, PostContext
from schemas.events import Activity, Event, EventOrder, PostCreated, PostEvent, PostUpdated, event_order
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, Micros, PostId, Revision
from schemas.times import to_micros
from trainer.errors import BadEvents

_LEAST_BEFORE: Final = 5
"""The protocol's: a member with fewer actions before the cut is not measured."""


class Timed(NamedTuple):
    """An event at its place in time. What makes a post or a member comes before what is done with it."""

    at_us: Micros
    is_activity: bool
    order: EventOrder
    event: Event


def timed(event: Event, body: bytes) -> Timed:
    """`body` is the event's line as it was sent."""
    order = event_order(event, body)
    return Timed(Micros(order.at_us), isinstance(event, Activity), order, event)


class Positive(NamedTuple):
    """A positive action."""

    at_us: Micros
    member_id: MemberId
    post_id: PostId
    action: str


class Feed:
    """All events of some files; those of one moment in the order given, as the protocol has them."""

    def __init__(self, events: Iterable[Timed], rules: ContextRules | None = None) -> None:
        self.rules = rules or ContextRules()
        self.events = sorted(events, key=lambda one: (one.at_us, one.is_activity))

    @cached_property
    def positives(self) -> list[Positive]:
        """On posts that the events hold."""
        return [
            Positive(one.at_us, activity.member_id, PostId(one.event.post_id), activity.action)
            for one in self.events
            if isinstance(one.event, Activity)
            and one.event.post_id in self.posts
            and is_positive(activity := _activity(one.at_us, one.event), self.rules)
        ]

    @cached_property
    def posts(self) -> dict[PostId, PostContext]:
        """As they were created, nothing counted yet: how a post is found when it is fresh."""
        found: dict[PostId, PostContext] = {}
        for one in self.events:
            if isinstance(one.event, PostCreated | PostUpdated):
                found.setdefault(PostId(one.event.post_id), _fresh(one.event))
        return found

    def cut(self, holdout: float) -> Micros:
        """The time of the action from which on the newest share of positive actions is held out. Raises BadEvents."""
        if not self.positives:
            raise BadEvents("the events hold no positive action on a post that they hold; give events with likes")
        index = int(len(self.positives) * (1 - holdout))
        return self.positives[index].at_us if holdout else Micros(self.positives[-1].at_us + 1)

    def before(self, cut_us: Micros) -> list[Timed]:
        return self.events[: bisect_left(self.events, cut_us, key=lambda one: one.at_us)]


class Rows:
    """Post and member rows, event by event."""

    def __init__(self, rules: ContextRules, *, wrote: bool = True) -> None:
        """`wrote`: the member's own posts are in the history too."""
        self.posts: dict[str, PostRow] = {}
        self.members: dict[str, MemberRow] = {}
        self._rules = rules
        self._wrote = wrote

    def apply(self, one: Timed) -> None:
        event, at_us = one.event, one.at_us
        if isinstance(event, Activity):
            row = self.posts.get(event.post_id) or PostRow(PostId(event.post_id))
            change = apply_activity(row, _activity(at_us, event), at_us, self._rules)
        elif isinstance(event, PostEvent):
            row = self.posts.get(event.post_id) or PostRow(PostId(event.post_id))
            change = apply_post_event(row, event, one.order, at_us, self._rules)
        else:
            member = apply_member_event(self.member(event.member_id), event, one.order)
            self.members[event.member_id] = member.row
            return
        self.posts[event.post_id] = change.row
        for hop in change.hops:
            self._act(hop, at_us)

    def member(self, member_id: str) -> MemberRow:
        return self.members.get(member_id) or MemberRow(MemberId(member_id))

    def context(self, member_id: str, as_of_us: Micros) -> MemberContext:
        return publish_member(self.member(member_id), as_of_us, self._rules)[1]

    def _act(self, hop: Hop, at_us: Micros) -> None:
        action = hop.payload
        if isinstance(action, MemberAction) and (self._wrote or action.action != "wrote"):
            row = apply_member_action(self.member(hop.entity_id), action, at_us, self._rules).row
            self.members[hop.entity_id] = row


def rows_at(feed: Feed, cut_us: Micros, *, wrote: bool = True) -> Rows:
    """What was known just before the cut."""
    rows = Rows(feed.rules, wrote=wrote)
    for one in feed.before(cut_us):
        rows.apply(one)
    return rows


class Task(NamedTuple):
    """What is measured: each member shall find the fresh posts that it acted on from the cut on."""

    cut_us: Micros
    candidates: list[PostContext]
    """All posts created at or after the cut."""
    targets: dict[MemberId, list[int]]
    """Of every member that has any: places among the candidates, each once."""
    acted: dict[MemberId, list[PostId]]
    """Of the same members: posts acted on before the cut, oldest first, as often as acted on."""

    @property
    def members(self) -> list[MemberId]:
        """Those that the protocol measures."""
        return [member_id for member_id in self.targets if len(self.acted[member_id]) >= _LEAST_BEFORE]


def task_at(feed: Feed, cut_us: Micros) -> Task:
    """Raises BadEvents when nobody can be measured."""
    candidates = [post for post in feed.posts.values() if post.created_at_us >= cut_us]
    place = {post.post_id: number for number, post in enumerate(candidates)}
    targets: dict[MemberId, dict[int, None]] = {}
    acted: dict[MemberId, list[PostId]] = {}
    for positive in feed.positives:
        if positive.at_us < cut_us:
            acted.setdefault(positive.member_id, []).append(positive.post_id)
        elif positive.post_id in place:
            targets.setdefault(positive.member_id, {})[place[positive.post_id]] = None
    members = sorted(targets)
    task = Task(
        cut_us,
        candidates,
        {member_id: list(targets[member_id]) for member_id in members},
        {member_id: acted.get(member_id, []) for member_id in members},
    )
    if not task.members:
        raise BadEvents(
            f"no member has {_LEAST_BEFORE} positive actions before the held out ones and one on a post of their time; "
            "give more events, or another --holdout"
        )
    return task


def _activity(at_us: Micros, event: Activity) -> PostActivity:
    return PostActivity(MemberId(event.member_id), event.action, at_us, event.dwell_ms)


def _fresh(event: PostCreated | PostUpdated) -> PostContext:
    created_us = to_micros(event.created_at)
    return PostContext(
        PostId(event.post_id),
        Revision(1),
        created_us,
        author_id=MemberId(event.author_id),
        text=event.text,
        language=event.language,
        created_at_us=created_us,
    )
