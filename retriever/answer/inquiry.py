"""One question on its way to its answer."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from encoders.interests import asked_vectors
from indexer.tiers import Filters
from retriever.answer.answer_builder import AnswerBuilder, Candidates
from retriever.answer.cold.kept_answers import Asked, Version, version_of
from retriever.answer.question import Question
from schemas.embeddings import Interest, Vector

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
    interests: tuple[Interest, ...] = ()
    """Of a member with several vectors: they are asked for beside `vector_D`."""

    @property
    def parts(self) -> list["QueryPart"]:
        """Its vectors, each as a query by itself. Empty if it has none."""
        if self.vector_D is None:
            return []
        own, *others = asked_vectors(self.vector_D, self.interests)
        parts = [QueryPart(self.vector_D, own.weight, self.asked, self.version)]
        for number, (vector_D, share) in enumerate(others, 1):
            version = version_of(self.version.revision, vector_D)
            parts.append(QueryPart(vector_D, share, self.asked._replace(interest=number), version))
        return parts


class QueryPart(NamedTuple):
    vector_D: Vector
    share: float
    """Of the weights of all parts."""
    asked: Asked
    version: Version


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
