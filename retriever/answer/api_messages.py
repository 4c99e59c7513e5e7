"""Questions of the HTTP API's first messages, and their answers."""

from typing import Final

from indexer.tiers import Filters
from retriever.answer.question import TIERS, Answer, Question
from retriever.reasons import Code, Reason
from schemas.api import RetrieveRequest, RetrieveResponse
from schemas.ids import MemberId
from schemas.times import to_micros

TIMEOUT_S: Final = 30.0
"""These messages name none."""
_OF_WHOLE_ANSWERS: Final = {
    Code.MEMBER_UNKNOWN,
    Code.MEMBER_WITHOUT_VECTOR,
    Code.TRENDING,
    Code.NOTHING_TRENDING,
}


def question_of(request: RetrieveRequest) -> Question:
    after = request.created_after
    filters = Filters(
        languages=frozenset(request.languages),
        created_after_us=None if after is None else to_micros(after),
        exclude_authors=frozenset(request.exclude_authors),
        exclude_posts=frozenset(request.exclude_posts),
    )
    return Question(
        member_id=None if request.member_id is None else MemberId(request.member_id),
        text=request.text,
        k=request.k,
        filters=filters,
        hide_acted=request.hide_acted,
        own_posts=request.own_posts,
        timeout_s=TIMEOUT_S,
    )


def response_of(answer: Answer) -> RetrieveResponse:
    return RetrieveResponse(
        generation=answer.generation,
        partial=answer.partial,
        reasons=[_sentence(reason) for reason in answer.reasons],
        post_ids=list(answer.post_ids),
        scores=answer.scores_C.tolist(),
        tiers=[TIERS[tier] for tier in answer.tiers_C.tolist()],
        counts=answer.counts,
        timings_ms=answer.timings_ms,
    )


def _sentence(reason: Reason) -> str:
    return str(reason.code) if reason.code in _OF_WHOLE_ANSWERS else f"{reason.code}: {reason.detail}"
