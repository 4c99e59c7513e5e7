"""What the retriever needs of one generation that is open."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from retriever.answer.figures import Figures
from retriever.answer.question import Answer, PostVectors, Question
from retriever.feed.hot_feed import FeedFigures
from schemas.api import HotPositions, HotPost, PostResponse
from schemas.ids import Generation, PostId


class OneRetriever(Protocol):
    """`retriever/answer/retriever.py` says what each method does. Any thread may call them."""

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]: ...

    def vectors(self, ids: Sequence[PostId], timeout_s: float) -> PostVectors: ...

    def post(self, post_id: PostId) -> PostResponse: ...

    def hot_posts(self) -> Iterator[HotPost]: ...

    def figures(self) -> Sequence[Figures]: ...

    def problems(self) -> list[str]: ...


class OneFeed(Protocol):
    """`retriever/feed/hot_feed.py` says what each method does. Any thread may call them."""

    def progress(self) -> HotPositions: ...

    def figures(self) -> Sequence[FeedFigures]: ...


class OpenGeneration(Protocol):
    """One generation with all that is its own: encoder, tiers, feeds, kept answers. Once open it fills itself."""

    @property
    def retriever(self) -> OneRetriever: ...

    @property
    def feed(self) -> OneFeed: ...

    def stop(self) -> None:
        """Tells it to end. Returns at once."""
        ...

    def close(self) -> None:
        """Waits until it has ended, some seconds at most. Called once, when nobody asks it any more."""
        ...

    def remove_files(self) -> None:
        """Called after `close` where the generation is not to be opened again."""
        ...


Open = Callable[[Generation], OpenGeneration]
"""Begins to open a generation, and does not wait until it is filled. Any error may be raised; it is called again then,
some seconds later."""
