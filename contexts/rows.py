"""Post and member rows: what the context stage knows of one entity, and what one event changes in it.

A row is a value made of parts that change at different rates. A change builds a new row from the changed parts and the
same objects for all others, so that whoever stores rows sees by identity which parts to store. Nothing here knows
where rows are stored.
"""

from typing import NamedTuple

from msgspec import Struct

from contexts.history import History
from contexts.id_log import IdLog
from schemas.events import EventOrder
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, Micros, PostId, Revision

NEVER = Micros(0)


class PostBody(Struct, frozen=True, array_like=True, gc=False):
    """What the author wrote. A deleted post has none."""

    author_id: MemberId
    text: str
    language: str | None
    created_at_us: Micros


class PostState(Struct, frozen=True, array_like=True, gc=False):
    """The small part that almost every event changes."""

    order: EventOrder | None = None
    """The order of the newest post event applied; None while only activity has come."""
    revision: Revision = Revision(0)
    as_of_us: Micros = NEVER
    counts: dict[str, int] = {}
    published_counts: dict[str, int] = {}
    published_us: Micros = NEVER
    publish_due_us: Micros | None = None


class WaitingAction(Struct, frozen=True, array_like=True, gc=False):
    """A positive action that came before its post, and when it came."""

    activity: PostActivity
    since_us: Micros


class PostRow(Struct, frozen=True, gc=False):
    post_id: PostId
    state: PostState = PostState()
    body: PostBody | None = None
    waiting_actions: tuple[WaitingAction, ...] = ()
    recipients: IdLog = IdLog()
    """Members whose histories hold this post."""

    @property
    def is_known(self) -> bool:
        """True once a post event was applied, also a delete; False while only activity has come."""
        return self.state.order is not None


class Profile(Struct, frozen=True, array_like=True, gc=False):
    headline: str | None
    skills: list[str]
    industry: str | None
    language: str | None


class MemberState(Struct, frozen=True, array_like=True, gc=False):
    order: EventOrder | None = None
    """The order of the newest member event applied; None while only actions have come."""
    deleted: bool = False
    deleted_at_us: Micros = NEVER
    """The tombstone: actions of the member up to this time are never applied again, also when the member returns."""
    revision: Revision = Revision(0)
    as_of_us: Micros = NEVER
    history_changed: bool = False
    """Since the last publication."""
    history_published_us: Micros = NEVER
    publish_due_us: Micros | None = None


class MemberRow(Struct, frozen=True, gc=False):
    member_id: MemberId
    state: MemberState = MemberState()
    profile: Profile | None = None
    history: History = History()
    acted: IdLog = IdLog()
    hidden: IdLog = IdLog()
    seen: IdLog = IdLog()
    waiting_posts: IdLog = IdLog()
    """Posts in whose rows an action of this member may wait. When the member is deleted, they are told to erase it."""


class Hop(Struct, frozen=True, gc=False):
    """A message to another row: a MemberAction to the member with this id, a PostActivity to the post."""

    entity_id: str
    payload: MemberAction | PostActivity


class GivenUpAction(NamedTuple):
    """An action whose post does not exist and that waits no longer, and the cause that its dead letter names."""

    post_id: PostId
    activity: PostActivity
    cause: str


class PostChange(Struct, frozen=True, gc=False):
    """What one event did to a post row. `skipped_because` says why all or a part of the event's work
    was skipped, so that it is counted; empty if nothing was skipped."""

    row: PostRow
    hops: tuple[Hop, ...] = ()
    publish: bool = False
    given_up: tuple[GivenUpAction, ...] = ()
    skipped_because: str = ""


class MemberChange(Struct, frozen=True, gc=False):
    """What one event did to a member row. `skipped_because` as for posts."""

    row: MemberRow
    hops: tuple[Hop, ...] = ()
    publish: bool = False
    skipped_because: str = ""


def open_window_end_us(published_us: Micros, window_s: float, now_us: Micros) -> Micros | None:
    """When the window ends that the publication at `published_us` opened; None if it has ended. After a step back of
    the clock it ends at most one whole window from now."""
    window_us = int(window_s * 1_000_000)
    return Micros(min(published_us, now_us) + window_us) if published_us + window_us > now_us else None
