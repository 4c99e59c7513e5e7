"""Messages of the retriever's HTTP API, as pydantic models: FastAPI makes the OpenAPI description from them.

Checks what each field may hold. Knows no tier and no server.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    model_validator,
)

from schemas.languages import LANGUAGE, MAX_LANGUAGE_CHARS, is_language
from schemas.times import moment_of

DEFAULT_K = 2000
MAX_K = 2048
"""A limit of both tiers: a GPU's top-k takes no more."""
MAX_FILTER_IDS = 10_000

_MAX_TIME_CHARS = 64


def _moment(value: object) -> datetime:
    """Only RFC 3339. pydantic by itself would also take numbers and strings of digits, as seconds or milliseconds."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value) > _MAX_TIME_CHARS:
        raise ValueError("give an RFC 3339 time such as 2026-01-05T10:00:00Z")
    return moment_of(value)


def _check_language(language: str) -> str:
    if not is_language(language):
        raise ValueError("is not a valid language tag; send a tag such as en or pt-BR")
    return language


_Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Language = Annotated[
    str,
    StringConstraints(max_length=MAX_LANGUAGE_CHARS),
    AfterValidator(_check_language),
    Field(json_schema_extra={"pattern": LANGUAGE}),
]
_Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _requires(name: str) -> dict[str, Any]:
    """JSON Schema for an object that has this field."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


class RetrieveRequest(_Message):
    """Exactly one of `member_id` and `text`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_requires("member_id"), _requires("text")]})

    member_id: _Id | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, strict=True)
    languages: list[_Language] = Field(default=[], max_length=100)
    created_after: _Moment | None = None
    exclude_authors: list[_Id] = Field(default=[], max_length=MAX_FILTER_IDS)
    exclude_posts: list[_Id] = Field(default=[], max_length=MAX_FILTER_IDS)
    hide_acted: StrictBool = False
    own_posts: StrictBool = False

    @model_validator(mode="after")
    def _one_query(self) -> "RetrieveRequest":
        if (self.member_id is None) == (self.text is None):
            raise ValueError("give exactly one of member_id and text")
        return self


Tier = Literal["hot", "cold", "trending"]


class RetrieveResponse(_Message):
    """`post_ids`, `scores` and `tiers` have equal length, best first. `partial` says that a part was missing, and
    `reasons` says which and why. A reason is also given if the answer does not come from the member's own vector
    (`member_unknown`, `trending`), and if it is empty because the posts that the member hid are not known
    (`member_unavailable`)."""

    generation: str
    partial: bool
    reasons: list[str]
    post_ids: list[str]
    scores: list[float]
    tiers: list[Tier]
    counts: dict[Literal["hot", "cold", "trending"], int]
    timings_ms: dict[str, float]


class TierPost(_Message):
    """One post as one tier holds it. If it is not `present`, all other fields are null."""

    present: bool
    revision: int | None = None
    deleted: bool | None = None
    author_id: str | None = None
    language: str | None = None
    created_at: datetime | None = None


class PostResponse(_Message):
    post_id: str
    generation: str
    cold: TierPost
    hot: TierPost


class Failure(_Message):
    """The body of every 4xx and 5xx answer."""

    detail: str


class HotPost(_Message):
    """One line of the dump of the hot tier."""

    post_id: str
    revision: int
    author_id: str
    created_at: datetime


class FreshnessStatus(_Message):
    p50: float | None
    p99: float | None


class HotPositions(_Message):
    """`positions` are, for each partition, the first offset that the hot feed has not applied yet; empty at first.

    `posts` is the number of live posts in the hot tier. `freshness_s` is about the posts of the last minutes.
    """

    generation: str
    topic: str
    caught_up: bool
    positions: dict[int, int]
    posts: int
    freshness_s: FreshnessStatus


class Readiness(_Message):
    """`problems` says what is missing."""

    ready: bool
    problems: list[str]


class ProcessStatus(_Message):
    name: str
    pid: int | None
    restarts: int


class StageStatus(_Message):
    """`lag` is in records. `oldest_age_s` is the age of the oldest record that is not processed yet; None without lag.

    `deleted_unread` is, for each partition, how many records retention deleted before the stage had read them, at most.
    """

    stage: str
    group: str
    topic: str
    lag: int | None
    oldest_age_s: float | None
    deleted_unread: dict[int, int] = {}


class ColdStatus(_Message):
    posts: int | None
    members: int | None


class HotStatus(_Message):
    posts: int | None


class TiersStatus(_Message):
    cold: ColdStatus
    hot: HotStatus


class StatusResponse(_Message):
    ready: bool
    generation: str | None
    processes: list[ProcessStatus]
    stages: list[StageStatus]
    tiers: TiersStatus
    dead_letters: int | None
    freshness_s: FreshnessStatus
    problems: list[str] = []
