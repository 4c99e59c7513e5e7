"""Contexts: everything that goes into an entity's prompt, as structured data, before any model sees it (JSON)."""

import msgspec
from msgspec import Struct

from schemas.errors import BadRecord
from schemas.ids import Int64, MemberId, Micros, PostId, Revision

COUNTED_ACTIONS = ("view", "dwell", "click", "like", "comment", "share", "follow", "hide", "impression")


class HistoryEntry(Struct, frozen=True, gc=False):
    """One positive action, or `wrote` for a post of the member's own. `text` is the post's text as it was then."""

    post_id: PostId
    action: str
    at_us: Micros
    text: str


class PostContext(Struct, frozen=True):
    """A deleted post has `deleted` set and neither text nor counts."""

    post_id: PostId
    revision: Revision
    as_of_us: Micros
    deleted: bool = False
    author_id: MemberId = MemberId("")
    text: str = ""
    language: str | None = None
    created_at_us: Micros = Micros(0)
    counts: dict[str, Int64] = {}


class MemberContext(Struct, frozen=True):
    """`history` is newest last. `acted`, `hidden` and `seen` are post ids, newest last; filters use them, prompts do
    not."""

    member_id: MemberId
    revision: Revision
    as_of_us: Micros
    deleted: bool = False
    headline: str | None = None
    skills: list[str] = []
    industry: str | None = None
    language: str | None = None
    history: list[HistoryEntry] = []
    acted: list[PostId] = []
    hidden: list[PostId] = []
    seen: list[PostId] = []


Context = PostContext | MemberContext

_encoder = msgspec.json.Encoder()
_post = msgspec.json.Decoder(PostContext)
_member = msgspec.json.Decoder(MemberContext)


def encode_context(context: Context) -> bytes:
    return _encoder.encode(context)


def decode_post_context(body: bytes) -> PostContext:
    """Raises BadRecord."""
    try:
        return _post.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a post context: {error}") from error


def decode_member_context(body: bytes) -> MemberContext:
    """Raises BadRecord."""
    try:
        return _member.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a member context: {error}") from error
