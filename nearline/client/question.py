"""What a client asks. Plain data: the retriever checks it, and refuses it with a sentence that names the field."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypedDict

Column = Literal["author", "created_at", "revision", "language"]


class SimilarFields(TypedDict, total=False):
    """The fields of `Question` that go with any query, as keyword arguments."""

    k: int
    generation: str | None
    columns: Sequence[Column]
    languages: Sequence[str]
    created_after: datetime | None
    created_before: datetime | None
    exclude_authors: Sequence[str]
    exclude_posts: Sequence[str]
    only_authors: Sequence[str] | None
    only_posts: Sequence[str] | None


class QuestionFields(SimilarFields, total=False):
    """All fields of `Question`, as keyword arguments."""

    member_id: str | None
    text: str | None
    vector: Iterable[float] | None
    post_ids: Sequence[str]
    hide_acted: bool
    hide_seen: bool
    own_posts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Give exactly one of `member_id`, `text`, `vector` and `post_ids`."""

    member_id: str | None = None
    text: str | None = None
    vector: Iterable[float] | None = None
    """As long as the generation's vectors; a numpy array is fine. Name its generation too: vectors of two generations
    cannot be compared."""
    post_ids: Sequence[str] = ()
    """The mean of these posts' vectors is searched for. At most 1,000. They are left out of the answer."""

    k: int | None = None
    """How many candidates at most, 1 to 2048. None: 2000."""
    generation: str | None = None
    """None: the serving one."""
    columns: Sequence[Column] = ()
    """Which columns the answer has beside ids, scores and tiers."""

    languages: Sequence[str] = ()
    """Empty: any language, and posts without one."""
    created_after: datetime | None = None
    created_before: datetime | None = None
    exclude_authors: Sequence[str] = ()
    """At most 10,000 ids in this field and in each of the next three."""
    exclude_posts: Sequence[str] = ()
    only_authors: Sequence[str] | None = None
    """None: any author. Empty: no post at all."""
    only_posts: Sequence[str] | None = None

    hide_acted: bool = False
    """Leave out what the member acted on. This field and the next two need `member_id`."""
    hide_seen: bool = False
    own_posts: bool = False
    """Keep the member's own posts in."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Ids of the caller's own request. The retriever writes them to its log."""

    request_id: str | None = None
    """The answer gives it back. If it is None the retriever makes one."""
    traceparent: str | None = None
    """As W3C Trace Context defines it."""


NO_TRACE = Trace()
