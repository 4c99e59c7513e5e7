"""Builds one answer: collects what is missing and how long each step took, and makes the response of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from retriever.answer.merge import Merged
from schemas.api import RetrieveResponse
from schemas.ids import Generation


class AnswerBuilder:
    """Belongs to one request. The two searches record their times from two threads, each under another name."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._began = time.perf_counter()
        self._timings_ms: dict[str, float] = {}
        self._reasons: list[str] = []
        self._partial = False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step. If the step is taken twice, both times are added."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._timings_ms[name] = self._timings_ms.get(name, 0.0) + _ms_since(began)

    def note(self, reason: str) -> None:
        """Adds a reason why the answer is as it is. The answer stays whole."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def missing(self, part: str, cause: object) -> None:
        """Makes the answer partial: `part` of it is missing."""
        self._partial = True
        self.note(f"{part}: {cause}")

    def finish(self, merged: Merged) -> RetrieveResponse:
        return RetrieveResponse(
            generation=self._generation,
            partial=self._partial,
            reasons=self._reasons,
            post_ids=list(merged.post_ids),
            scores=merged.scores,
            tiers=merged.tiers,
            counts={tier: merged.tiers.count(tier) for tier in ("hot", "cold", "trending")},
            timings_ms={**self._timings_ms, "total": _ms_since(self._began)},
        )


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
