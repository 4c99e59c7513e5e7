"""Messages of the retriever's HTTP API, as pydantic models: FastAPI makes the OpenAPI description from them.

Checks what each field may hold. Knows no tier and no server.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

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
MAX_VECTOR_IDS = 1_000
"""Of a request for vectors, and of posts that others shall be similar to."""
MAX_BATCH = 64
MAX_DIMENSIONS = 16_384
"""More than any model package has. Keeps a vector of millions of numbers from being read at all."""
DEFAULT_TIMEOUT_MS = 200
MAX_TIMEOUT_MS = 60_000

_MAX_TIME_CHARS = 64
_MANY_FIELDS: Final = 100
"""Far more than a message has."""


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


def _whole(value: object) -> object:
    """For JSON 5 and 5.0 are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Language = Annotated[
    str,
    StringConstraints(max_length=MAX_LANGUAGE_CHARS),
    AfterValidator(_check_language),
    Field(json_schema_extra={"pattern": LANGUAGE}),
]
_Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class _Message(BaseModel):
    """A request with a field that we do not know is refused: its answer would not be what was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, message: object) -> object:
        """To name a million unknown fields takes seconds."""
        if isinstance(message, dict) and len(message) > _MANY_FIELDS:
            raise ValueError(f"there are {len(message):,} fields, and {len(cls.model_fields)} are known")
        return message


class _Answer(BaseModel):
    """An answer may come from a newer server. A client ignores the fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _requires(name: str, kind: str) -> dict[str, Any]:
    """JSON Schema for an object that has this field, and not null in it."""
    return {"required": [name], "properties": {name: {"type": kind}}}


_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# Of the long lists only the first wrong item is told (`fail_fast`): a batch may have a million of them, and to tell all
# takes seconds in which no other request is answered.
_Vector = Annotated[
    list[_Number],
    # A number other than zero: else it has no direction. `retriever/service/questions.py` checks that.
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        fail_fast=True,
        json_schema_extra={"contains": {"not": {"const": 0}}},
    ),
]
_K = Annotated[int, Field(ge=1, le=MAX_K, strict=True), BeforeValidator(_whole)]
_TimeoutMs = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS, strict=True), BeforeValidator(_whole)]
_Dimension = Annotated[int, Field(ge=1, le=MAX_DIMENSIONS, strict=True), BeforeValidator(_whole)]
_Generation = _Id | None
_Ids = Annotated[list[_Id], Field(max_length=MAX_FILTER_IDS, fail_fast=True)]
_PostIds = Annotated[list[_Id], Field(min_length=1, max_length=MAX_VECTOR_IDS, fail_fast=True)]
Column = Literal["author", "created_at", "revision", "language"]
Tier = Literal["hot", "cold", "trending"]


class _Search(_Message):
    """What all questions for candidates share."""

    k: _K = DEFAULT_K
    generation: _Generation = None
    """None: the serving one."""
    columns: list[Column] = Field(default=[], max_length=4)
    """Which columns the answer has beside ids, scores and tiers."""
    languages: list[_Language] = Field(default=[], max_length=100)
    created_after: _Moment | None = None
    created_before: _Moment | None = None
    exclude_authors: _Ids = []
    exclude_posts: _Ids = []
    only_authors: _Ids | None = None
    """None: any author. An empty list: no post passes."""
    only_posts: _Ids | None = None


class BatchQuery(_Search):
    """Exactly one of `member_id`, `text`, `vector` and `post_ids`. The three flags count only with `member_id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                _requires("member_id", "string"),
                _requires("text", "string"),
                _requires("vector", "array"),
                _requires("post_ids", "array"),
            ]
        }
    )

    member_id: _Id | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    vector: _Vector | None = None
    post_ids: _PostIds | None = None
    hide_acted: StrictBool = False
    hide_seen: StrictBool = False
    own_posts: StrictBool = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if sum(query is not None for query in (self.member_id, self.text, self.vector, self.post_ids)) != 1:
            raise ValueError("give exactly one of member_id, text, vector and post_ids")
        return self


class RetrieveRequest(BatchQuery):
    timeout_ms: _TimeoutMs = DEFAULT_TIMEOUT_MS


class RetrieveBatchRequest(_Message):
    """`timeout_ms` is for all queries together."""

    queries: list[BatchQuery] = Field(min_length=1, max_length=MAX_BATCH)
    timeout_ms: _TimeoutMs = DEFAULT_TIMEOUT_MS


class SimilarRequest(_Search):
    post_ids: _PostIds
    timeout_ms: _TimeoutMs = DEFAULT_TIMEOUT_MS


class VectorsRequest(_Message):
    """`dimension`: vectors are cut to so many numbers, and of length one again; null: to none."""

    post_ids: _PostIds
    generation: _Generation = None
    timeout_ms: _TimeoutMs = DEFAULT_TIMEOUT_MS
    dimension: _Dimension | None = None


class ReasonMessage(_Answer):
    """Why an answer is as it is: a code for programs, of `retriever/reasons.py`, and a sentence for people."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class RetrieveResponse(_Answer):
    """`post_ids`, `scores` and `tiers` have equal length, best first; so have the four last columns, if they were asked
    for. `partial` says that something may be missing, and `reasons` says what. A reason is also given if the answer
    does not come from the member's own vector (`member_unknown`, `trending`), and if it is empty because the posts that
    the member hid are not known (`member_unavailable`)."""

    generation: str
    partial: bool
    reasons: list[ReasonMessage]
    post_ids: list[str]
    scores: list[float]
    tiers: list[Tier]
    counts: dict[Tier, int]
    timings_ms: dict[str, float]
    authors: list[str] | None = None
    created_at: list[datetime] | None = None
    revisions: list[int] | None = None
    languages: list[str | None] | None = None


class RetrieveBatchResponse(_Answer):
    """In the order of the queries."""

    answers: list[RetrieveResponse]


class VectorsResponse(_Answer):
    """Columns in the order of the request's ids. A post that is unknown or deleted has revision 0 and zeros. `partial`
    says that some may be outdated, or of posts that are deleted, and `reasons` says why."""

    generation: str
    post_ids: list[str]
    revisions: list[int]
    dimension: int
    vectors: list[list[float]]
    partial: bool
    reasons: list[ReasonMessage]


class TierPost(_Answer):
    """One post as one tier holds it. If it is not `present`, all other fields are null."""

    present: bool
    revision: int | None = None
    deleted: bool | None = None
    author_id: str | None = None
    language: str | None = None
    created_at: datetime | None = None


class PostResponse(_Answer):
    post_id: str
    generation: str
    cold: TierPost
    hot: TierPost


class ProblemCode(StrEnum):
    """Why there is no answer, over HTTP and gRPC. Clients decide by these codes, so none of them is ever renamed."""

    BAD_FIELD = "bad_field"
    """A field holds a wrong value, or is not known; `detail` names it."""
    BAD_BODY = "bad_body"
    """The body cannot be read."""
    NOT_JSON = "not_json"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    """The request did not arrive in time."""
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    UNAUTHENTICATED = "unauthenticated"
    WRONG_HOST = "wrong_host"
    """Over HTTP: `Host` is no name of loopback, where the retriever listens without an API key."""
    UNKNOWN_GENERATION = "unknown_generation"
    BUSY = "busy"
    """More questions came than can be answered in time. Try again after `retry_after_ms`."""
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"


class Problem(_Answer):
    """The body of every 4xx and 5xx answer (RFC 9457)."""

    title: str
    status: int
    detail: str
    """One sentence. Names the field that is wrong."""
    code: ProblemCode
    retry_after_ms: int | None = None


class HotPost(_Answer):
    """One line of the dump of the hot tier."""

    post_id: str
    revision: int
    author_id: str
    created_at: datetime


class FreshnessStatus(_Answer):
    """In seconds, over the last minutes. `newest_age_s`: how long ago a change became searchable last. While a stage on
    the way stands still nothing can be measured, and the percentiles are at least that age."""

    p50: float | None
    p99: float | None
    newest_age_s: float | None = None


class HotPositions(_Answer):
    """`positions` are, for each partition, the first offset that the hot feed has not applied yet; empty at first.

    `posts` is the number of live posts in the hot tier. `freshness_s` is about the posts of the last minutes.
    """

    generation: str
    topic: str
    caught_up: bool
    positions: dict[int, int]
    posts: int
    freshness_s: FreshnessStatus


class GenerationReadiness(_Answer):
    """Of a generation that does not serve. `state` is what the log of the generations says of it: kept, ready; serving
    as long as the pointer has moved to it and it is not whole here; retired while it is being closed."""

    state: str
    ready: bool
    problems: list[str]


class Readiness(_Answer):
    """`problems` says what is missing. `beside` has the other generations that are open or shall be, and
    `standing_still` a sentence for each stage of the instance that stands still; whether the retriever is ready does
    not depend on these."""

    ready: bool
    problems: list[str]
    beside: dict[str, GenerationReadiness] = {}
    standing_still: list[str] = []


class ProcessStatus(_Answer):
    name: str
    pid: int | None
    restarts: int


class StageStatus(_Answer):
    """`lag` is in records; in offsets, which are more, if there was no time to count them. `oldest_age_s` is the age of
    the oldest record that is not processed yet; None without lag.

    `deleted_unread` is, for each partition, how many records retention deleted before the stage had read them, at most.
    """

    stage: str
    group: str
    topic: str
    lag: int | None
    oldest_age_s: float | None
    deleted_unread: dict[int, int] = {}


class ColdStatus(_Answer):
    posts: int | None
    members: int | None


class HotStatus(_Answer):
    posts: int | None


class TiersStatus(_Answer):
    cold: ColdStatus
    hot: HotStatus


class StatusResponse(_Answer):
    ready: bool
    generation: str | None
    processes: list[ProcessStatus]
    stages: list[StageStatus]
    tiers: TiersStatus
    dead_letters: int | None
    freshness_s: FreshnessStatus
    problems: list[str] = []
    standing_still: list[str] = []
    """A sentence for each stage that does not go on: since when, why, what it holds up, and what happens next."""
