"""Events and rows for the pure functions of `contexts/`, in few words. Times are seconds after START."""

from datetime import UTC, datetime, timedelta

import msgspec

from contexts.members import apply_member_action, apply_member_event
from contexts.posts import apply_activity, apply_post_event
from contexts.rows import MemberChange, MemberRow, PostChange, PostRow
from contexts.settings import ContextRules
from schemas.events import (
    Action,
    MemberDeleted,
    MemberEvent,
    MemberUpdated,
    PostCreated,
    PostDeleted,
    PostEvent,
    PostUpdated,
    event_order,
)
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, Micros, Offset, Partition, PostId
from schemas.times import to_micros

START = datetime(2026, 1, 5, tzinfo=UTC)
RULES = ContextRules()
POST = PostRow(PostId("p"))
MEMBER = MemberRow(MemberId("m"))


def moment(at_s: float) -> datetime:
    return START + timedelta(seconds=at_s)


def us(at_s: float) -> Micros:
    return to_micros(moment(at_s))


def post_created(at_s: float, text: str = "text", author: str = "author") -> PostCreated:
    return PostCreated(post_id="p", author_id=author, text=text, created_at=moment(at_s))


def post_updated(at_s: float, text: str = "new text", created_at_s: float = 0) -> PostUpdated:
    return PostUpdated(post_id="p", author_id="author", text=text, created_at=moment(created_at_s), at=moment(at_s))


def post_deleted(at_s: float) -> PostDeleted:
    return PostDeleted(post_id="p", at=moment(at_s))


def post_activity(
    action: Action | str, at_s: float = 1, member: str = "m", dwell_ms: int | None = None
) -> PostActivity:
    place = Partition(3), Offset(7)
    return PostActivity(MemberId(member), action, us(at_s), dwell_ms, *place)  # type: ignore[arg-type]


def member_updated(at_s: float, headline: str = "baker") -> MemberUpdated:
    return MemberUpdated(member_id="m", headline=headline, skills=["bread"], at=moment(at_s))


def member_deleted(at_s: float) -> MemberDeleted:
    return MemberDeleted(member_id="m", at=moment(at_s))


def member_action(action: str, post: str = "p", at_s: float = 1, text: str = "text") -> MemberAction:
    return MemberAction(PostId(post), action, us(at_s), text)


def post_step(
    row: PostRow, event: PostEvent | PostActivity, now_s: float = 100, rules: ContextRules = RULES
) -> PostChange:
    if isinstance(event, PostActivity):
        return apply_activity(row, event, us(now_s), rules)
    return apply_post_event(row, event, event_order(event, msgspec.json.encode(event)), us(now_s), rules)


def member_step(
    row: MemberRow, event: MemberEvent | MemberAction, now_s: float = 100, rules: ContextRules = RULES
) -> MemberChange:
    if isinstance(event, MemberAction):
        return apply_member_action(row, event, us(now_s), rules)
    return apply_member_event(row, event, event_order(event, msgspec.json.encode(event)))


def post_after(*events: PostEvent | PostActivity, now_s: float = 100, rules: ContextRules = RULES) -> PostRow:
    row = POST
    for event in events:
        row = post_step(row, event, now_s, rules).row
    return row


def member_after(*events: MemberEvent | MemberAction, now_s: float = 100, rules: ContextRules = RULES) -> MemberRow:
    row = MEMBER
    for event in events:
        row = member_step(row, event, now_s, rules).row
    return row
