"""Between the messages of gRPC and those that both ways in share (`schemas/api.py`), which check every field."""

from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from pydantic import BaseModel

from retriever import nearline_pb2 as pb
from retriever.answer.question import Answer, PostVectors
from retriever.errors import RequestRefused
from schemas.api import Column, ProblemCode, StatusResponse
from schemas.times import EPOCH

M = TypeVar("M", bound=BaseModel)
_COLUMNS: Final[dict[int, Column]] = {
    pb.COLUMN_AUTHOR: "author",
    pb.COLUMN_CREATED_AT: "created_at",
    pb.COLUMN_REVISION: "revision",
    pb.COLUMN_LANGUAGE: "language",
}
_MICROS: Final = "_us"
_BYTES: Final = 2
"""The wire type of strings, messages and packed numbers."""


def read(kind: type[Message], model: type[M], body: bytes) -> M:
    """Raises RequestRefused if the body is no such message or has a field that we do not know, ValidationError for a
    wrong value."""
    try:
        message = kind.FromString(body)
    except DecodeError as error:
        raise RequestRefused(f"the body is no {kind.DESCRIPTOR.name}", code=ProblemCode.BAD_BODY) from error
    return model.model_validate(_fields(message))


def write_answer(answer: Answer) -> bytes:
    """A RetrieveResponse. Scores and tiers are copied as they lie in their arrays, which takes half the time of giving
    them to protobuf one by one. Joined parts of a message are the message."""
    head = pb.RetrieveResponse(
        generation=answer.generation,
        partial=answer.partial,
        reasons=_reasons(answer),
        post_ids=answer.post_ids,
        timings_ms=answer.timings_ms,
        authors=answer.authors,
        created_at_us=answer.created_at_us,
        revisions=answer.revisions,
        languages=None if answer.languages is None else [language or "" for language in answer.languages],
    )
    scores = _packed(pb.RetrieveResponse.SCORES_FIELD_NUMBER, answer.scores_C.astype("<f4", copy=False))
    # The numbers of the enum begin at 1. All are below 128, so that each is one byte on the wire.
    tiers = _packed(pb.RetrieveResponse.TIERS_FIELD_NUMBER, answer.tiers_C + np.uint8(1))
    return _encoded(head) + scores + tiers


def write_answers(answers: list[Answer]) -> bytes:
    """A RetrieveBatchResponse."""
    number = pb.RetrieveBatchResponse.ANSWERS_FIELD_NUMBER
    return b"".join(_with_length(number, write_answer(answer)) for answer in answers)


def write_vectors(vectors: PostVectors) -> bytes:
    """A VectorsResponse."""
    head = pb.VectorsResponse(
        generation=vectors.generation,
        post_ids=vectors.post_ids,
        revisions=vectors.revisions,
        dimension=vectors.vectors_CD.shape[1],
        partial=vectors.partial,
        reasons=_reasons(vectors),
    )
    numbers = _packed(pb.VectorsResponse.VECTORS_FIELD_NUMBER, vectors.vectors_CD.astype("<f4", copy=False))
    return _encoded(head) + numbers


def write_status(status: StatusResponse) -> bytes:
    message = pb.StatusResponse(
        ready=status.ready,
        problems=status.problems,
        generation=status.generation,
        processes=[pb.ProcessStatus(**process.model_dump()) for process in status.processes],
        stages=[pb.StageStatus(**stage.model_dump()) for stage in status.stages],
        cold_posts=status.tiers.cold.posts,
        cold_members=status.tiers.cold.members,
        hot_posts=status.tiers.hot.posts,
        dead_letters=status.dead_letters,
        freshness_p50_s=status.freshness_s.p50,
        freshness_p99_s=status.freshness_s.p99,
        standing_still=status.standing_still,
    )
    return _encoded(message)


def _fields(message: Message, place: str = "") -> dict[str, Any]:
    """The fields that are set, as the model of the message takes them. `place` comes before the names of fields in
    sentences."""
    for unknown in UnknownFieldSet(message):
        raise RequestRefused(f"{place}field number {unknown.field_number}: is not known to this server")
    return dict(_converted(field.name, value, place) for field, value in message.ListFields())


def _converted(name: str, value: Any, place: str) -> tuple[str, Any]:
    if name.endswith(_MICROS):
        return name.removesuffix(_MICROS), _moment(name, value, place)
    if name == "queries":
        return name, [_fields(query, f"queries.{number}.") for number, query in enumerate(value)]
    if name == "columns":
        return name, [_COLUMNS.get(column, column) for column in value]
    if isinstance(value, pb.Ids):
        return name, _fields(value, f"{place}{name}.").get("ids", [])
    return name, value if isinstance(value, str | int | float) else list(value)


def _moment(name: str, micros: int, place: str) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise RequestRefused(f"{place}{name}: is not between the years 1 and 9999") from None


def _reasons(answer: Answer | PostVectors) -> list[pb.Reason]:
    return [pb.Reason(code=reason.code, detail=reason.detail) for reason in answer.reasons]


def _encoded(message: Message) -> bytes:
    return bytes(message.SerializeToString())


def _packed(number: int, column: npt.NDArray[Any]) -> bytes:
    return _with_length(number, column.tobytes())


def _with_length(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    """Seven bits in each byte, the lowest first. All bytes but the last have their eighth bit set."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
