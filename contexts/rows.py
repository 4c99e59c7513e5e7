"""Post and member rows: what the context stage knows of one entity.

Rows are values, made of parts that change at different rates; a part that did not change is the same object, and is
not stored again. Nothing here knows where rows are kept.
"""

from typing import NamedTuple

from msgspec import Struct

from contexts.logs import History, IdLog
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
    """Of the newest post event applied; None while only activity is known."""
    revision: Revision = Revision(0)
    as_of_us: Micros = NEVER
    counts: dict[str, int] = {}
    published_counts: dict[str, int] = {}
    published_us: Micros = NEVER
    publish_due_us: Micros | None = None


class Waiting(Struct, frozen=True, array_like=True, gc=False):
    """A positive action that came before its post."""

    activity: PostActivity
    since_us: Micros


class PostRow(Struct, frozen=True, gc=False):
    post_id: PostId
    state: PostState = PostState()
    body: PostBody | None = None
    waiting: tuple[Waiting, ...] = ()
    recipients: IdLog = IdLog()
    """Members whose histories hold this post."""

    @property
    def known(self) -> bool:
        """Created or deleted; not known while only activity has come."""
        return self.state.order is not None


class Profile(Struct, frozen=True, array_like=True, gc=False):
    headline: str | None
    skills: list[str]
    industry: str | None
    language: str | None


class MemberState(Struct, frozen=True, array_like=True, gc=False):
    order: EventOrder | None = None
    """Of the newest member event applied; None while only actions are known."""
    deleted: bool = False
    deleted_at_us: Micros = NEVER
    """The tombstone: nothing of the member's up to this time is ever taken in again, also after a return."""
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
    waits: IdLog = IdLog()
    """Posts in whose rows an action of this member may wait; asked to forget it when the member is deleted."""


class Hop(NamedTuple):
    """To the member with this id, or to the post, by what it carries."""

    entity_id: str
    payload: MemberAction | PostActivity


class Unplaced(NamedTuple):
    """An action that waited in vain for its post, and why it is a dead letter now."""

    post_id: PostId
    activity: PostActivity
    cause: str


class PostChange(NamedTuple):
    """What one event did to a post row. `note` names what was skipped, to be counted; empty: nothing was."""

    row: PostRow
    hops: tuple[Hop, ...] = ()
    publish: bool = False
    unplaced: tuple[Unplaced, ...] = ()
    note: str = ""


class MemberChange(NamedTuple):
    """What one event did to a member row."""

    row: MemberRow
    hops: tuple[Hop, ...] = ()
    publish: bool = False
    note: str = ""


def due_in_window(published_us: Micros, window_s: float, now_us: Micros) -> Micros | None:
    """When the window that a publication opened ends; None when it is over. A clock that went back opens at most one
    whole window."""
    window_us = int(window_s * 1_000_000)
    return Micros(min(published_us, now_us) + window_us) if published_us + window_us > now_us else None
