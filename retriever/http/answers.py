"""Writes answers as JSON, from their columns: no object is made for a candidate."""

from datetime import timedelta
from typing import Any

import msgspec

from retriever.answer.question import TIERS, Answer, PostVectors
from schemas.times import EPOCH

_encode = msgspec.json.Encoder().encode


def write_answer(answer: Answer) -> bytes:
    return _encode(_message(answer))


def write_answers(answers: list[Answer]) -> bytes:
    return _encode({"answers": [_message(answer) for answer in answers]})


def write_vectors(vectors: PostVectors) -> bytes:
    return _encode(
        {
            "generation": vectors.generation,
            "post_ids": vectors.post_ids,
            "revisions": vectors.revisions,
            "dimension": vectors.vectors_CD.shape[1],
            "vectors": vectors.vectors_CD.tolist(),
            "partial": vectors.partial,
            "reasons": _reasons(vectors),
        }
    )


def _reasons(answer: Answer | PostVectors) -> list[dict[str, str]]:
    return [{"code": reason.code, "detail": reason.detail} for reason in answer.reasons]


def _message(answer: Answer) -> dict[str, Any]:
    """The fields of `schemas.api.RetrieveResponse`. Columns that were not asked for are left out."""
    message: dict[str, Any] = {
        "generation": answer.generation,
        "partial": answer.partial,
        "reasons": _reasons(answer),
        "post_ids": answer.post_ids,
        "scores": answer.scores_C.tolist(),
        "tiers": [TIERS[tier] for tier in answer.tiers_C.tolist()],
        "counts": answer.counts,
        "timings_ms": answer.timings_ms,
    }
    if answer.authors is not None:
        message["authors"] = answer.authors
    if answer.created_at_us is not None:
        message["created_at"] = [EPOCH + timedelta(microseconds=created_us) for created_us in answer.created_at_us]
    if answer.revisions is not None:
        message["revisions"] = answer.revisions
    if answer.languages is not None:
        message["languages"] = answer.languages
    return message
