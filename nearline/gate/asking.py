"""Asks the retriever for the answers of one generation, so that a check sees what members would see.

An answer that is partial says nothing of the generation, so it is asked for again, some times. The retriever opens a
generation when the log says that it is ready, which takes a moment.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Final

from nearline.ask.connections import Connections
from nearline.ask.hot_reports import SlowestFeed
from nearline.client.answer import Answer
from nearline.client.question import Question
from nearline.errors import NotReady
from schemas.ids import Generation

TIMEOUT_S: Final = 10.0
_TRIES: Final = 5
_PAUSE_S: Final = 0.5
_WITHOUT_VECTOR: Final = frozenset({"member_unknown", "member_without_vector", "trending", "nothing_trending"})

Ask = Callable[[Question], Answer]
"""Asks the retriever. Raises RetrieverError."""


def until_open(connections: Connections, generations: Iterable[Generation], within_s: float) -> None:
    """Returns when all processes of the retriever can be asked for all of these. Raises NotRunning, BadCertificate,
    NotAllowed; NotReady when the time is over."""
    deadline_s = time.monotonic() + within_s
    for generation in generations:
        with closing(SlowestFeed(connections, generation)) as feed:
            while feed.positions() is None:
                if time.monotonic() > deadline_s:
                    raise NotReady(
                        f"the retriever has not opened {generation} within {within_s:g} s; its log and /readyz say "
                        "why; mend that, and run the gate again"
                    )
                time.sleep(_PAUSE_S)


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
