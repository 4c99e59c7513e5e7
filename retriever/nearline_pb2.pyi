from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Column(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLUMN_UNSPECIFIED: _ClassVar[Column]
    COLUMN_AUTHOR: _ClassVar[Column]
    COLUMN_CREATED_AT: _ClassVar[Column]
    COLUMN_REVISION: _ClassVar[Column]
    COLUMN_LANGUAGE: _ClassVar[Column]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_HOT: _ClassVar[Tier]
    TIER_COLD: _ClassVar[Tier]
    TIER_TRENDING: _ClassVar[Tier]
COLUMN_UNSPECIFIED: Column
COLUMN_AUTHOR: Column
COLUMN_CREATED_AT: Column
COLUMN_REVISION: Column
COLUMN_LANGUAGE: Column
TIER_UNSPECIFIED: Tier
TIER_HOT: Tier
TIER_COLD: Tier
TIER_TRENDING: Tier

class RetrieveRequest(_message.Message):
    __slots__ = ("member_id", "text", "vector", "post_ids", "k", "generation", "timeout_ms", "columns", "languages", "created_after_us", "created_before_us", "exclude_authors", "exclude_posts", "only_authors", "only_posts", "hide_acted", "hide_seen", "own_posts")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    POST_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AFTER_US_FIELD_NUMBER: _ClassVar[int]
    CREATED_BEFORE_US_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_AUTHORS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_POSTS_FIELD_NUMBER: _ClassVar[int]
    ONLY_AUTHORS_FIELD_NUMBER: _ClassVar[int]
    ONLY_POSTS_FIELD_NUMBER: _ClassVar[int]
    HIDE_ACTED_FIELD_NUMBER: _ClassVar[int]
    HIDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    OWN_POSTS_FIELD_NUMBER: _ClassVar[int]
    member_id: str
    text: str
    vector: _containers.RepeatedScalarFieldContainer[float]
    post_ids: _containers.RepeatedScalarFieldContainer[str]
    k: int
    generation: str
    timeout_ms: int
    columns: _containers.RepeatedScalarFieldContainer[Column]
    languages: _containers.RepeatedScalarFieldContainer[str]
    created_after_us: int
    created_before_us: int
    exclude_authors: _containers.RepeatedScalarFieldContainer[str]
    exclude_posts: _containers.RepeatedScalarFieldContainer[str]
    only_authors: Ids
    only_posts: Ids
    hide_acted: bool
    hide_seen: bool
    own_posts: bool
    def __init__(self, member_id: _Optional[str] = ..., text: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., post_ids: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ..., generation: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, str]]] = ..., languages: _Optional[_Iterable[str]] = ..., created_after_us: _Optional[int] = ..., created_before_us: _Optional[int] = ..., exclude_authors: _Optional[_Iterable[str]] = ..., exclude_posts: _Optional[_Iterable[str]] = ..., only_authors: _Optional[_Union[Ids, _Mapping]] = ..., only_posts: _Optional[_Union[Ids, _Mapping]] = ..., hide_acted: _Optional[bool] = ..., hide_seen: _Optional[bool] = ..., own_posts: _Optional[bool] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("generation", "partial", "reasons", "post_ids", "scores", "tiers", "authors", "created_at_us", "revisions", "languages", "timings_ms")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    POST_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    generation: str
    partial: bool
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    post_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    tiers: _containers.RepeatedScalarFieldContainer[Tier]
    authors: _containers.RepeatedScalarFieldContainer[str]
    created_at_us: _containers.RepeatedScalarFieldContainer[int]
    revisions: _containers.RepeatedScalarFieldContainer[int]
    languages: _containers.RepeatedScalarFieldContainer[str]
    timings_ms: _containers.ScalarMap[str, float]
    def __init__(self, generation: _Optional[str] = ..., partial: _Optional[bool] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., post_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., tiers: _Optional[_Iterable[_Union[Tier, str]]] = ..., authors: _Optional[_Iterable[str]] = ..., created_at_us: _Optional[_Iterable[int]] = ..., revisions: _Optional[_Iterable[int]] = ..., languages: _Optional[_Iterable[str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class RetrieveBatchRequest(_message.Message):
    __slots__ = ("queries", "timeout_ms")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[RetrieveRequest]
    timeout_ms: int
    def __init__(self, queries: _Optional[_Iterable[_Union[RetrieveRequest, _Mapping]]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class RetrieveBatchResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[RetrieveResponse]
    def __init__(self, answers: _Optional[_Iterable[_Union[RetrieveResponse, _Mapping]]] = ...) -> None: ...

class SimilarRequest(_message.Message):
    __slots__ = ("post_ids", "k", "generation", "timeout_ms", "columns", "languages", "created_after_us", "created_before_us", "exclude_authors", "exclude_posts", "only_authors", "only_posts")
    POST_IDS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AFTER_US_FIELD_NUMBER: _ClassVar[int]
    CREATED_BEFORE_US_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_AUTHORS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_POSTS_FIELD_NUMBER: _ClassVar[int]
    ONLY_AUTHORS_FIELD_NUMBER: _ClassVar[int]
    ONLY_POSTS_FIELD_NUMBER: _ClassVar[int]
    post_ids: _containers.RepeatedScalarFieldContainer[str]
    k: int
    generation: str
    timeout_ms: int
    columns: _containers.RepeatedScalarFieldContainer[Column]
    languages: _containers.RepeatedScalarFieldContainer[str]
    created_after_us: int
    created_before_us: int
    exclude_authors: _containers.RepeatedScalarFieldContainer[str]
    exclude_posts: _containers.RepeatedScalarFieldContainer[str]
    only_authors: Ids
    only_posts: Ids
    def __init__(self, post_ids: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ..., generation: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, str]]] = ..., languages: _Optional[_Iterable[str]] = ..., created_after_us: _Optional[int] = ..., created_before_us: _Optional[int] = ..., exclude_authors: _Optional[_Iterable[str]] = ..., exclude_posts: _Optional[_Iterable[str]] = ..., only_authors: _Optional[_Union[Ids, _Mapping]] = ..., only_posts: _Optional[_Union[Ids, _Mapping]] = ...) -> None: ...

class VectorsRequest(_message.Message):
    __slots__ = ("post_ids", "generation", "timeout_ms", "dimension")
    POST_IDS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    post_ids: _containers.RepeatedScalarFieldContainer[str]
    generation: str
    timeout_ms: int
    dimension: int
    def __init__(self, post_ids: _Optional[_Iterable[str]] = ..., generation: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., dimension: _Optional[int] = ...) -> None: ...

class VectorsResponse(_message.Message):
    __slots__ = ("generation", "post_ids", "revisions", "dimension", "vectors", "partial", "reasons")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POST_IDS_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    generation: str
    post_ids: _containers.RepeatedScalarFieldContainer[str]
    revisions: _containers.RepeatedScalarFieldContainer[int]
    dimension: int
    vectors: _containers.RepeatedScalarFieldContainer[float]
    partial: bool
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    def __init__(self, generation: _Optional[str] = ..., post_ids: _Optional[_Iterable[str]] = ..., revisions: _Optional[_Iterable[int]] = ..., dimension: _Optional[int] = ..., vectors: _Optional[_Iterable[float]] = ..., partial: _Optional[bool] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("ready", "problems", "generation", "processes", "stages", "cold_posts", "cold_members", "hot_posts", "dead_letters", "freshness_p50_s", "freshness_p99_s", "standing_still")
    READY_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    COLD_POSTS_FIELD_NUMBER: _ClassVar[int]
    COLD_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    HOT_POSTS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_P50_S_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_P99_S_FIELD_NUMBER: _ClassVar[int]
    STANDING_STILL_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    generation: str
    processes: _containers.RepeatedCompositeFieldContainer[ProcessStatus]
    stages: _containers.RepeatedCompositeFieldContainer[StageStatus]
    cold_posts: int
    cold_members: int
    hot_posts: int
    dead_letters: int
    freshness_p50_s: float
    freshness_p99_s: float
    standing_still: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ready: _Optional[bool] = ..., problems: _Optional[_Iterable[str]] = ..., generation: _Optional[str] = ..., processes: _Optional[_Iterable[_Union[ProcessStatus, _Mapping]]] = ..., stages: _Optional[_Iterable[_Union[StageStatus, _Mapping]]] = ..., cold_posts: _Optional[int] = ..., cold_members: _Optional[int] = ..., hot_posts: _Optional[int] = ..., dead_letters: _Optional[int] = ..., freshness_p50_s: _Optional[float] = ..., freshness_p99_s: _Optional[float] = ..., standing_still: _Optional[_Iterable[str]] = ...) -> None: ...

class ProcessStatus(_message.Message):
    __slots__ = ("name", "pid", "restarts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    pid: int
    restarts: int
    def __init__(self, name: _Optional[str] = ..., pid: _Optional[int] = ..., restarts: _Optional[int] = ...) -> None: ...

class StageStatus(_message.Message):
    __slots__ = ("stage", "group", "topic", "lag", "oldest_age_s", "deleted_unread")
    class DeletedUnreadEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    STAGE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_S_FIELD_NUMBER: _ClassVar[int]
    DELETED_UNREAD_FIELD_NUMBER: _ClassVar[int]
    stage: str
    group: str
    topic: str
    lag: int
    oldest_age_s: float
    deleted_unread: _containers.ScalarMap[int, int]
    def __init__(self, stage: _Optional[str] = ..., group: _Optional[str] = ..., topic: _Optional[str] = ..., lag: _Optional[int] = ..., oldest_age_s: _Optional[float] = ..., deleted_unread: _Optional[_Mapping[int, int]] = ...) -> None: ...
