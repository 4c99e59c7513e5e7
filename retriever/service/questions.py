"""Makes a `Question` of a request that is already checked field by field."""

from datetime import datetime

import numpy as np

from indexer.tiers import Filters
from retriever.answer.question import Question
from retriever.errors import RequestRefused
from schemas.api import BatchQuery, ProblemCode, SimilarRequest
from schemas.embeddings import Vector
from schemas.ids import Generation, MemberId, Micros, PostId
from schemas.times import to_micros


def question_of(query: BatchQuery, timeout_s: float) -> Question:
    """Raises RequestRefused for a vector without a direction."""
    return Question(
        member_id=None if query.member_id is None else MemberId(query.member_id),
        text=query.text,
        vector_D=None if query.vector is None else _of_length_one(query.vector),
        post_ids=tuple(map(PostId, query.post_ids or ())),
        k=query.k,
        filters=_filters(query),
        hide_acted=query.hide_acted,
        hide_seen=query.hide_seen,
        own_posts=query.own_posts,
        columns=frozenset(query.columns),
        generation=None if query.generation is None else Generation(query.generation),
        timeout_s=timeout_s,
    )


def similar_question(request: SimilarRequest, timeout_s: float) -> Question:
    return Question(
        post_ids=tuple(map(PostId, request.post_ids)),
        k=request.k,
        filters=_filters(request),
        columns=frozenset(request.columns),
        generation=None if request.generation is None else Generation(request.generation),
        timeout_s=timeout_s,
    )


def _filters(request: BatchQuery | SimilarRequest) -> Filters:
    return Filters(
        languages=frozenset(request.languages),
        created_after_us=_micros(request.created_after),
        created_before_us=_micros(request.created_before),
        exclude_authors=frozenset(request.exclude_authors),
        exclude_posts=frozenset(request.exclude_posts),
        only_authors=None if request.only_authors is None else frozenset(request.only_authors),
        only_posts=None if request.only_posts is None else frozenset(request.only_posts),
    )


def _micros(moment: datetime | None) -> Micros | None:
    return None if moment is None else to_micros(moment)


def _of_length_one(numbers: list[float]) -> Vector:
    """float32 (D,). The largest number is made one first, so that the squares of huge numbers do not overflow."""
    vector_D = np.array(numbers, np.float64)
    largest = np.abs(vector_D).max()
    if largest == 0:
        raise RequestRefused("vector: all its numbers are zero, so it has no direction", code=ProblemCode.BAD_FIELD)
    vector_D /= largest
    return (vector_D / np.linalg.norm(vector_D)).astype(np.float32)
