"""Turns questions into the messages of `retriever/nearline.proto`, and its answers into ours. Sends nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from nearline.client.answer import Answer, PostVector, ProcessStatus, Reason, StageStatus, Status, Tier, Vectors
from nearline.client.question import Column, Question
from retriever import nearline_pb2 as pb
from retriever.errors import RequestRefused

M = TypeVar("M", pb.RetrieveRequest, pb.RetrieveBatchRequest, pb.SimilarRequest, pb.VectorsRequest)
_COLUMNS: Final = {
    "author": pb.COLUMN_AUTHOR,
    "created_at": pb.COLUMN_CREATED_AT,
    "revision": pb.COLUMN_REVISION,
    "language": pb.COLUMN_LANGUAGE,
}
MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""What a retriever takes. gRPC would refuse a larger request without our code, and would send most of it before."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class _Tiers(dict[int, Tier]):
    def __missing__(self, number: int) -> Tier:
        """Of a tier that only a newer retriever has."""
        return "unknown"


_TIERS: Final = _Tiers({pb.TIER_HOT: "hot", pb.TIER_COLD: "cold", pb.TIER_TRENDING: "trending"})


def retrieve_request(question: Question) -> pb.RetrieveRequest:
    """Raises RequestRefused for a value that no message can hold, or for too many of them. What the values mean, the
    retriever checks."""
    return _not_too_large(_query(question))


def _query(question: Question) -> pb.RetrieveRequest:
    with _refusing_values():
        return pb.RetrieveRequest(
            member_id=question.member_id,
            text=question.text,
            vector=question.vector,
            hide_acted=question.hide_acted,
            hide_seen=question.hide_seen,
            own_posts=question.own_posts,
            **_common_fields(question),
        )


def batch_request(questions: Sequence[Question]) -> pb.RetrieveBatchRequest:
    """Raises RequestRefused."""
    return _not_too_large(pb.RetrieveBatchRequest(queries=[_query(question) for question in questions]))


def similar_request(question: Question) -> pb.SimilarRequest:
    """Of a question by `post_ids`. Raises RequestRefused."""
    with _refusing_values():
        return _not_too_large(pb.SimilarRequest(**_common_fields(question)))


def vectors_request(post_ids: Sequence[str], generation: str | None, dimension: int | None) -> pb.VectorsRequest:
    """Raises RequestRefused."""
    with _refusing_values():
        ids = _ids("post_ids", post_ids)
        return _not_too_large(pb.VectorsRequest(post_ids=ids, generation=generation, dimension=dimension))


def answer_of(message: pb.RetrieveResponse, columns: Sequence[Column], request_id: str | None) -> Answer:
    """`columns` are those that were asked for: the message cannot tell an empty column from none."""
    # protobuf copies a whole column (`[:]`) in less time than it gives out its elements one by one.
    return Answer(
        generation=message.generation,
        partial=message.partial,
        reasons=_reasons(message),
        post_ids=tuple(message.post_ids[:]),
        scores=tuple(message.scores[:]),
        tiers=tuple(map(_TIERS.__getitem__, message.tiers[:])),
        timings_ms=dict(message.timings_ms),
        authors=tuple(message.authors) if "author" in columns else None,
        created_at=tuple(map(_moment, message.created_at_us)) if "created_at" in columns else None,
        revisions=tuple(message.revisions) if "revision" in columns else None,
        languages=tuple(language or None for language in message.languages) if "language" in columns else None,
        request_id=request_id,
    )


def vectors_of(message: pb.VectorsResponse, request_id: str | None) -> Vectors:
    numbers, dimension = tuple(message.vectors), message.dimension
    posts = tuple(
        PostVector(post_id, revision, numbers[row * dimension : (row + 1) * dimension]) if revision else None
        for row, (post_id, revision) in enumerate(zip(message.post_ids, message.revisions, strict=True))
    )
    return Vectors(message.generation, posts, request_id, message.partial, _reasons(message))


def _reasons(message: pb.RetrieveResponse | pb.VectorsResponse) -> tuple[Reason, ...]:
    return tuple(Reason(reason.code, reason.detail) for reason in message.reasons)


def status_of(message: pb.StatusResponse) -> Status:
    return Status(
        ready=message.ready,
        problems=tuple(message.problems),
        generation=_optional(message, "generation"),
        processes=tuple(ProcessStatus(each.name, _optional(each, "pid"), each.restarts) for each in message.processes),
        stages=tuple(map(_stage_of, message.stages)),
        cold_posts=_optional(message, "cold_posts"),
        cold_members=_optional(message, "cold_members"),
        hot_posts=_optional(message, "hot_posts"),
        dead_letters=_optional(message, "dead_letters"),
        freshness_p50_s=_optional(message, "freshness_p50_s"),
        freshness_p99_s=_optional(message, "freshness_p99_s"),
        standing_still=tuple(message.standing_still),
    )


def _stage_of(stage: pb.StageStatus) -> StageStatus:
    return StageStatus(
        stage.stage,
        stage.group,
        stage.topic,
        _optional(stage, "lag"),
        _optional(stage, "oldest_age_s"),
        dict(stage.deleted_unread),
    )


def _common_fields(question: Question) -> dict[str, Any]:
    """The fields that RetrieveRequest and SimilarRequest share."""
    only_authors, only_posts = question.only_authors, question.only_posts
    return {
        "post_ids": _ids("post_ids", question.post_ids),
        "k": question.k,
        "generation": question.generation,
        "columns": [_column(name) for name in question.columns],
        "languages": _ids("languages", question.languages),
        "created_after_us": _micros("created_after", question.created_after),
        "created_before_us": _micros("created_before", question.created_before),
        "exclude_authors": _ids("exclude_authors", question.exclude_authors),
        "exclude_posts": _ids("exclude_posts", question.exclude_posts),
        "only_authors": None if only_authors is None else pb.Ids(ids=_ids("only_authors", only_authors)),
        "only_posts": None if only_posts is None else pb.Ids(ids=_ids("only_posts", only_posts)),
    }


def _ids(field: str, ids: Sequence[str]) -> Sequence[str]:
    """Refuses a string: Python would take its letters for ids."""
    if isinstance(ids, str):
        raise RequestRefused(f"{field}: give a list of strings, not one string")
    return ids


def _column(name: str) -> int:
    if name not in _COLUMNS:
        raise RequestRefused(f"columns: there is no column {name!r}; there are {', '.join(_COLUMNS)}")
    return int(_COLUMNS[name])


def _micros(field: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise RequestRefused(f"{field}: give a time with a zone, such as datetime.now(UTC)")
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _not_too_large(request: M) -> M:
    if request.ByteSize() > MAX_REQUEST_BYTES:
        sentence = f"the request is larger than {MAX_REQUEST_BYTES:,} bytes; send fewer ids or a shorter text"
        raise RequestRefused(sentence, code="too_large")
    return request


@contextmanager
def _refusing_values() -> Iterator[None]:
    """protobuf raises ValueError for a number out of range and for text that is not UTF-8."""
    try:
        yield
    except ValueError as error:
        raise RequestRefused(f"the request cannot be sent: {error}") from error
