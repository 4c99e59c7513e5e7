"""One question on its way to its answer."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from indexer.tiers import Filters
from retriever.answer.answer_builder import AnswerBuilder, Candidates
from retriever.answer.cold.kept_answers import Asked, Version
from retriever.answer.question import Question
from schemas.embeddings import Vector

REST_S: Final = 0.02
"""Of a question's time, for the merge and for whoever sends the answer."""


def deadline_s(now_s: float, timeout_s: float) -> float:
    """Until when a question that came now may wait for a tier."""
    return now_s + timeout_s - min(REST_S, timeout_s / 4)


class Query(NamedTuple):
    vector_D: Vector | None
    """Without a vector, the trending lists answer."""
    filters: Filters
    """Those of the request and those of the member. Both tiers apply them before scoring."""
    asked: Asked
    version: Version
    """Of the member."""


@dataclass(slots=True, eq=False)
class Inquiry:
    """Belongs to one thread."""

    question: Question
    deadline_s: float
    """Until then a tier may be waited for, by the clock of the retriever."""
    before_hot_s: float
    """Until then all may be waited for that comes before the hot search, so that a cold tier that hangs leaves time for
    it."""
    builder: AnswerBuilder
    query: Query | None = None
    """None if no candidates may be given. The builder knows why."""
    candidates: Candidates | None = None
