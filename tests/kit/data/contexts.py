"""Contexts for the tests of this folder."""

from typing import Any

from schemas.contexts import HistoryEntry, MemberContext, PostContext
from schemas.ids import MemberId, Micros, PostId, Revision

HOUR_US = 3_600_000_000


def post(text: str, post_id: str = "p1", **fields: Any) -> PostContext:
    return PostContext(PostId(post_id), Revision(1), Micros(10 * HOUR_US), text=text, **fields)


def entry(text: str, action: str = "like", hours_ago: float = 0) -> HistoryEntry:
    return HistoryEntry(PostId("p"), action, Micros(int((10 - hours_ago) * HOUR_US)), text)


def member(*history: HistoryEntry, **fields: Any) -> MemberContext:
    return MemberContext(MemberId("m1"), Revision(1), Micros(10 * HOUR_US), history=list(history), **fields)
