"""Hops: the records that the context stage sends from one of its tables to the other (msgpack).

`activity-by-post` carries PostActivity, keyed by post; `actions-by-member` carries MemberAction, keyed by member.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.events import Action
from schemas.ids import Int64, MemberId, Micros, Offset, Partition, PostId


class PostActivity(Struct, frozen=True, array_like=True, gc=False):
    """One activity on its way to the post's row. `partition` and `offset` are those of its input record; they are kept
    for a dead letter.

    Two actions are no activity. Both take out what waits in the post's row from this member up to this time: `erase`
    because the member is deleted; `refuse`, as dead letters, because more of the member's activity waits than the
    member's row can keep track of."""

    member_id: MemberId
    action: Action | Literal["erase", "refuse"]
    at_us: Micros
    dwell_ms: Int64 | None = None
    partition: Partition = Partition(-1)
    offset: Offset = Offset(-1)


class MemberAction(Struct, frozen=True, array_like=True, gc=False):
    """One action on its way to the member's row, with the text of the post as it was then.

    `hide`, `impression` and the positive actions come from activity. `wrote` stands for a post of the member's own.
    `forget` takes a deleted post out of the history. `waits` says that an activity of the member waits in this post's
    row."""

    post_id: PostId
    action: str
    at_us: Micros
    text: str = ""


_encoder = msgspec.msgpack.Encoder()
_post_activity = msgspec.msgpack.Decoder(PostActivity)
_member_action = msgspec.msgpack.Decoder(MemberAction)


def encode_hop(hop: PostActivity | MemberAction) -> bytes:
    return _encoder.encode(hop)


def decode_post_activity(body: bytes) -> PostActivity:
    """Raises BadRecord."""
    try:
        return _post_activity.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a hop to a post: {error}") from error


def decode_member_action(body: bytes) -> MemberAction:
    """Raises BadRecord."""
    try:
        return _member_action.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a hop to a member: {error}") from error
