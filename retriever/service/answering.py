"""What the service needs of a retriever, and of the hot feeds that fill it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from retriever.answer.figures import Figures
from retriever.answer.question import Answer, PostVectors, Question
from retriever.feed.hot_feed import FeedFigures
from schemas.api import GenerationReadiness, HotPositions, HotPost, PostResponse
from schemas.ids import Generation, PostId


class Answering(Protocol):
    """Called from many threads. Every method may block, those with a question for as long as its timeout at most.

    They raise RetrieverUnavailable if there is no answer now, RequestRefused for a value that can never be answered.
    """

    @property
    def generation(self) -> Generation:
        """The one that serves: it answers whoever names none. Raises RetrieverUnavailable if none is open yet."""
        ...

    def check_generation(self, generation: str | None) -> None:
        """Of a request. Raises RequestRefused if it is not served here, RetrieverUnavailable if it will be soon."""
        ...

    def answer(self, question: Question) -> Answer: ...

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """In the order of the questions, 1 to 64 of them."""
        ...

    def vectors(self, ids: Sequence[PostId], timeout_s: float, generation: Generation | None = None) -> PostVectors: ...

    def post(self, post_id: PostId) -> PostResponse:
        """One post as each tier holds it."""
        ...

    def hot_posts(self, generation: Generation | None = None) -> Iterator[HotPost]: ...

    def figures(self) -> Sequence[Figures]:
        """Of each generation that is open, the serving one first. Does not block."""
        ...

    def problems(self) -> list[str]:
        """Why no whole answer can be given now, in sentences. Empty if it can. Does not block."""
        ...

    def beside(self) -> Mapping[Generation, GenerationReadiness]:
        """Of each generation that is open or shall be, and does not serve here. Does not block."""
        ...


class HotFeeds(Protocol):
    """Called from many threads. The methods do not block."""

    def progress(self, generation: Generation | None = None) -> HotPositions:
        """None: of the serving generation. Raises as `check_generation` does, and RetrieverUnavailable if none is open
        yet."""
        ...

    def figures(self) -> Sequence[FeedFigures]:
        """Of each generation that is open."""
        ...
