"""What the service needs of a retriever."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from retriever.answer.cold.kept_answers import KeptCounts
from retriever.answer.question import Answer, PostVectors, Question
from schemas.api import HotPost, PostResponse
from schemas.ids import Generation, PostId


class Answering(Protocol):
    """Called from many threads. Every method may block, those with a question for as long as its timeout at most.

    They raise RetrieverUnavailable if there is no answer now, RequestRefused for a value that can never be answered.
    """

    generation: Generation

    def answer(self, question: Question) -> Answer: ...

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """In the order of the questions, 1 to 64 of them."""
        ...

    def vectors(self, ids: Sequence[PostId], timeout_s: float) -> PostVectors: ...

    def post(self, post_id: PostId) -> PostResponse:
        """One post as each tier holds it."""
        ...

    def hot_posts(self) -> Iterator[HotPost]: ...

    def hot_count(self) -> int: ...

    def kept_counts(self) -> KeptCounts: ...

    def problems(self) -> list[str]:
        """Why no whole answer can be given now, in sentences. Empty if it can. Does not block."""
        ...
