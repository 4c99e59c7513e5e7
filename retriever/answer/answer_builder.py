"""Builds one answer: collects what is missing and how long each step took, and makes the answer of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import IndexerError, TierLate
from indexer.tiers import Scores
from retriever.answer.question import Answer
from retriever.reasons import Code, Reason
from schemas.ids import Generation, MemberId, Micros, PostId, Revision

NEITHER: Final = "neither tier can answer now; try again"
HOT_PROBLEM: Final = Reason(Code.HOT_UNAVAILABLE, "the hot tier cannot answer now")


@dataclass(slots=True)
class Candidates:
    """As columns, best first."""

    post_ids: list[PostId] = field(default_factory=list)
    scores_C: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    tiers_C: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    revisions: list[Revision] | None = None
    authors: list[MemberId] | None = None
    created_at_us: list[Micros] | None = None
    languages: list[str | None] | None = None


class AnswerBuilder:
    """Belongs to one question, and to the thread that answers it."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._began = time.perf_counter()
        self._timings_ms: dict[str, float] = {}
        self._reasons: list[Reason] = []
        self._partial = False

    @property
    def is_partial(self) -> bool:
        """As far as is known."""
        return self._partial

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step. If the step is taken twice, both times are added."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add_time(name, time.perf_counter() - began)

    def add_time(self, name: str, seconds: float) -> None:
        self._timings_ms[name] = self._timings_ms.get(name, 0.0) + round(seconds * 1000, 3)

    def note(self, code: Code, sentence: str) -> None:
        """Adds a reason why the answer is as it is. The answer stays whole."""
        self._add(Reason(code, sentence))

    def missing(self, reason: Reason) -> None:
        """Makes the answer partial."""
        self._partial = True
        self._add(reason)

    def finish(self, candidates: Candidates) -> Answer:
        self.add_time("total", time.perf_counter() - self._began)
        return Answer(
            generation=self._generation,
            partial=self._partial,
            reasons=self._reasons,
            post_ids=candidates.post_ids,
            scores_C=candidates.scores_C,
            tiers_C=candidates.tiers_C,
            timings_ms=self._timings_ms,
            authors=candidates.authors,
            created_at_us=candidates.created_at_us,
            revisions=candidates.revisions,
            languages=candidates.languages,
        )

    def _add(self, reason: Reason) -> None:
        """Each code once: its first sentence."""
        if all(reason.code != other.code for other in self._reasons):
            self._reasons.append(reason)


def cold_problem(error: IndexerError) -> Reason:
    """Without the error's own words, which may hold a path or an address."""
    if isinstance(error, TierLate):
        return Reason(Code.COLD_LATE, "the cold tier did not answer within the deadline")
    return Reason(Code.COLD_UNAVAILABLE, "the cold tier cannot answer now")
