"""Asks the retriever for the answers of one generation, so that a check sees what members would see.

An answer that is partial says nothing of the generation, so it is asked for again, some times.
"""

import time
from collections.abc import Callable
from typing import Final

from nearline.client.answer import Answer
from nearline.client.question import Question
from nearline.errors import NotReady

TIMEOUT_S: Final = 10.0
_TRIES: Final = 5
_PAUSE_S: Final = 0.5
_WITHOUT_VECTOR: Final = frozenset({"member_unknown", "member_without_vector", "trending", "nothing_trending"})

Ask = Callable[[Question], Answer]
"""Asks the retriever. Raises RetrieverError."""


def whole_answer(ask: Ask, question: Question) -> Answer:
    """Raises RetrieverError; NotReady if the generation gives no whole answer."""
    for _ in range(_TRIES):
        answer = ask(question)
        if not answer.partial:
            return answer
        time.sleep(_PAUSE_S)
    reasons = ", ".join(str(reason) for reason in answer.reasons)
    raise NotReady(f"the answers of {answer.generation} are not whole: {reasons}; wait, and run the gate again")


def comes_from_a_vector(answer: Answer) -> bool:
    """False for a member that has none in this generation."""
    return not _WITHOUT_VECTOR & {reason.code for reason in answer.reasons}
