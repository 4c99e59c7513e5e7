"""A feed: recorded events in the order of their time, with the posts and the positive actions among them.

Owns that order and the cut in time between what is learned from and what is held out. Refuses to know files and models;
what was known of a post or a member at a moment is in `replay`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from contexts.actions import is_positive
from contexts.settings import ContextRules
from schemas.contexts import PostContext
from schemas.events import Activity, Event, EventOrder, PostCreated, PostUpdated, event_order, is_canary
from schemas.hops import PostActivity
from schemas.ids import MemberId, Micros, PostId, Revision
from schemas.times import to_micros
from trainer.errors import BadEvents


class TimedEvent(NamedTuple):
    at_us: Micros
    is_activity: bool
    """At one moment activity comes last: a post or a member is made before something is done with it."""
    order: EventOrder
    event: Event


def timed_event(event: Event, body: bytes) -> TimedEvent:
    """`body` is the event's line as it was sent."""
    order = event_order(event, body)
    return TimedEvent(Micros(order.at_us), isinstance(event, Activity), order, event)


class PositiveAction(NamedTuple):
    at_us: Micros
    member_id: MemberId
    post_id: PostId
    action: str


class Feed:
    """All events of some files but those of canaries. Events of the same moment keep the order in which they are given:
    the evaluation protocol needs that."""

    def __init__(self, events: Iterable[TimedEvent], rules: ContextRules | None = None) -> None:
        self.rules = rules or ContextRules()
        learned_from = (timed for timed in events if not is_canary(timed.event))
        self.events = sorted(learned_from, key=lambda timed: (timed.at_us, timed.is_activity))

    @cached_property
    def positives(self) -> list[PositiveAction]:
        """The positive actions on posts that the events hold."""
        return [
            PositiveAction(at_us, MemberId(event.member_id), PostId(event.post_id), event.action)
            for at_us, _, _, event in self.events
            if isinstance(event, Activity)
            and event.post_id in self.posts
            and is_positive(post_activity(at_us, event), self.rules)
        ]

    @cached_property
    def posts(self) -> dict[PostId, PostContext]:
        """As they were when they were created, without counts: as a fresh post is when it is to be found."""
        posts: dict[PostId, PostContext] = {}
        for timed in self.events:
            if isinstance(timed.event, PostCreated | PostUpdated):
                posts.setdefault(PostId(timed.event.post_id), _fresh_post(timed.event))
        return posts

    def cut(self, holdout: float) -> Micros:
        """The newest `holdout` share of the positive actions is held out: the time of the first of them. Raises
        BadEvents."""
        if not self.positives:
            raise BadEvents("the events hold no positive action on a post that they hold; give events with likes")
        index = int(len(self.positives) * (1 - holdout))
        return self.positives[index].at_us if holdout else Micros(self.positives[-1].at_us + 1)

    def before(self, cut_us: Micros) -> list[TimedEvent]:
        return self.events[: bisect_left(self.events, cut_us, key=lambda timed: timed.at_us)]


def post_activity(at_us: Micros, event: Activity) -> PostActivity:
    return PostActivity(MemberId(event.member_id), event.action, at_us, event.dwell_ms)


def _fresh_post(event: PostCreated | PostUpdated) -> PostContext:
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
