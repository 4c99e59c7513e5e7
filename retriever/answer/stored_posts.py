"""Looks posts up by their ids: in the hot tier, and those that it does not hold in the cold tier.

The hot tier holds the newest record of each of its posts, so the cold tier is not asked about them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from indexer.errors import IndexerError
from indexer.tiers import ColdReader, HotTier, StoredPost
from retriever.answer.answer_builder import HOT_PROBLEM, NEITHER, cold_problem
from retriever.answer.hot_state import HotState
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Reason
from schemas.ids import PostId

_MIN_TIMEOUT_S: Final = 0.001


class Found(NamedTuple):
    posts: list[StoredPost | None]
    """In the order of the ids. Tombstones too; None for a post that no tier that answered holds."""
    problems: list[Reason]
    """Which tier did not answer, and why a post that none holds may be there all the same."""
    unread: list[Reason]
    """Why there may be newer records, also of posts that were found."""


class StoredPosts:
    """Any thread may ask."""

    def __init__(
        self,
        hot: HotTier,
        cold: ColdReader,
        hot_state: HotState,
        unread: Callable[[], list[Reason]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unread` says why there may be records that neither tier holds."""
        self._hot = hot
        self._cold = cold
        self._hot_state = hot_state
        self._unread = unread
        self._clock = clock

    def find(self, ids: Sequence[PostId], deadline_s: float, *, with_vectors: bool = False) -> Found:
        """Raises RetrieverUnavailable if neither tier answers."""
        unread = self._unread()  # before the look-up, so that it holds for that
        hot = self._in_hot(ids, with_vectors, deadline_s)
        posts: list[StoredPost | None] = [None] * len(ids) if hot is None else hot
        problems = [HOT_PROBLEM] if hot is None else []
        unknown = [row for row, post in enumerate(posts) if post is None]
        if not unknown or (hot is not None and self._hot_state.holds_everything()):
            return Found(posts, problems, unread)
        try:
            timeout_s = max(deadline_s - self._clock(), _MIN_TIMEOUT_S)
            cold = self._cold.posts([ids[row] for row in unknown], with_vectors=with_vectors, timeout_s=timeout_s)
        except IndexerError as error:
            if hot is None:
                raise RetrieverUnavailable(NEITHER) from error
            return Found(posts, [*problems, cold_problem(error)], unread)
        for row, post in zip(unknown, cold, strict=True):
            posts[row] = post
        return Found(posts, problems + unread if None in cold else problems, unread)

    def _in_hot(self, ids: Sequence[PostId], with_vectors: bool, deadline_s: float) -> list[StoredPost | None] | None:
        """A hot tier that hangs leaves half of the time for the cold one."""
        timeout_s = max((deadline_s - self._clock()) / 2, _MIN_TIMEOUT_S)
        try:
            return self._hot.posts(ids, with_vectors=with_vectors, timeout_s=timeout_s)
        except IndexerError:
            return None
