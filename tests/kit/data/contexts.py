"""Contexts of posts and members, as the context stage publishes them and an encoder reads them."""

from typing import Any

from schemas.contexts import HistoryEntry, MemberContext, PostContext
from schemas.ids import MemberId, Micros, PostId, Revision

HOUR_US = 3_600_000_000
_AS_OF = Micros(10 * HOUR_US)


def post_context(text: str = "a text", *, post_id: str = "p1", revision: int = 1, **fields: Any) -> PostContext:
    """A deleted post (`deleted=True`) has no text."""
    text = "" if fields.get("deleted") else text
    return PostContext(PostId(post_id), Revision(revision), _AS_OF, text=text, **fields)


def history_entry(text: str, action: str = "like", hours_ago: float = 0) -> HistoryEntry:
    return HistoryEntry(PostId("p"), action, Micros(_AS_OF - int(hours_ago * HOUR_US)), text)


def member_context(*history: HistoryEntry, member_id: str = "m1", revision: int = 1, **fields: Any) -> MemberContext:
    return MemberContext(MemberId(member_id), Revision(revision), _AS_OF, history=list(history), **fields)
