"""Searches both tiers at the same time and merges their hits. A tier that fails makes the answer partial."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np

from indexer.errors import IndexerError
from indexer.tiers import ColdHits, ColdReader, Filters, Hits, HotTier, StoredPost
from retriever.answer.answer_builder import AnswerBuilder
from retriever.answer.merge import NO_HITS, UNCHANGED, HotNow, Merged, changed_meanwhile, may_miss_posts, merge
from retriever.answer.query import Query, passes
from retriever.errors import RetrieverUnavailable
from retriever.feed.trending_lists import TrendingPost
from schemas.embeddings import Vector
from schemas.ids import PostId, Revision

TIER_MARGIN: Final = 96
"""How many hits each tier is asked for beyond k. Some are lost in the merge: the cold copy of a post that changed in
the last seconds, and the hot copy of a post that changed while the searches ran."""
MAX_TIER_K: Final = 4096
_NEITHER: Final = "neither tier can answer now; try again"

T = TypeVar("T")


class TierSearch:
    """Any thread may search. The hot tier is searched in the caller's thread, the cold tier in a thread of the pool."""

    def __init__(self, cold: ColdReader, hot: HotTier, threads: int) -> None:
        self._cold = cold
        self._hot = hot
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cold-search")

    def close(self) -> None:
        """Does not wait for searches that are still running: a cold tier may hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def nearest(self, vector_D: Vector, query: Query, k: int, answer: AnswerBuilder) -> Merged:
        """The best k by score. Raises RetrieverUnavailable when neither tier answers."""
        limit = min(k + TIER_MARGIN, MAX_TIER_K)
        hot, cold = self._ask_both(
            answer,
            lambda: self._hot.search(vector_D, limit, query.filters),
            lambda: _lists(self._cold.search(vector_D, limit, query.filters)),
        )
        hot = hot or NO_HITS
        if cold is None:
            return merge(hot, NO_HITS, UNCHANGED, k)
        merged = self._merge(vector_D, query, hot, cold, k, answer)
        if not any(may_miss_posts(merged, hits, limit, k) for hits in (hot, cold)):
            return merged
        # Both are asked again, because more hits of one tier may hide more hits of the other.
        more_hot = _timed("hot", lambda: self._hot.search(vector_D, MAX_TIER_K, query.filters), answer)
        more_cold = _timed("cold", lambda: _lists(self._cold.search(vector_D, MAX_TIER_K, query.filters)), answer)
        return self._merge(vector_D, query, more_hot or hot, more_cold or cold, k, answer)

    def trending(self, posts: Sequence[TrendingPost], query: Query, k: int, answer: AnswerBuilder) -> Merged:
        """The first k posts that a tier holds alive and that pass the filters, in the given order."""
        listed = [post for post in posts if post.post_id not in query.filters.exclude_posts]
        chosen: list[TrendingPost] = []
        # The lists may be long, and most posts in them are alive. So the tiers are asked for 2 k posts at a time.
        for chunk in _chunks(listed, 2 * k):
            stored_posts = self._stored([post.post_id for post in chunk], answer)
            chosen += [
                post
                for post, stored in zip(chunk, stored_posts, strict=True)
                if stored and passes(stored, query.filters)
            ]
            if len(chosen) >= k:
                break
        del chosen[k:]
        return Merged([post.post_id for post in chosen], [post.score for post in chosen], ["trending"] * len(chosen))

    def _stored(self, ids: list[PostId], answer: AnswerBuilder) -> list[StoredPost | None]:
        """Each post in its newest revision; None if neither tier holds it."""
        hot, cold = self._ask_both(answer, lambda: self._hot.posts(ids), lambda: self._cold.posts(ids))
        none_stored: list[StoredPost | None] = [None] * len(ids)
        return [_newest(*pair) for pair in zip(hot or none_stored, cold or none_stored, strict=True)]

    def _ask_both(
        self, answer: AnswerBuilder, ask_hot: Callable[[], T], ask_cold: Callable[[], T]
    ) -> tuple[T | None, T | None]:
        """None for a tier that fails. Raises RetrieverUnavailable when both fail."""
        cold_answer: Future[T | None] = self._pool.submit(_timed, "cold", ask_cold, answer)
        hot = _timed("hot", ask_hot, answer)
        cold = cold_answer.result()
        if hot is None and cold is None:
            raise RetrieverUnavailable(_NEITHER)
        return hot, cold

    def _merge(  # noqa: PLR0917
        self, vector_D: Vector, query: Query, hot: Hits, cold: Hits, k: int, answer: AnswerBuilder
    ) -> Merged:
        with answer.step("merge"):
            now = _try(lambda: self._hot_now(vector_D, query.filters, hot, cold), "hot_unavailable", answer)
            return merge(hot, cold, now or UNCHANGED, k)

    def _hot_now(self, vector_D: Vector, filters: Filters, hot: Hits, cold: Hits) -> HotNow:
        """Scores the posts that changed while the searches ran, because neither list has their newest revision."""
        rows = changed_meanwhile(hot, cold, self._hot.revisions(cold.post_ids))
        if not rows:
            return UNCHANGED
        posts = self._hot.posts([cold.post_ids[row] for row in rows], with_vectors=True)
        # A post that was dropped from the hot tier since `revisions` was called keeps its cold copy.
        still_held = [row for row, post in zip(rows, posts, strict=True) if post is not None]
        return HotNow(still_held, _scored(vector_D, [post for post in posts if post and passes(post, filters)]))


def _scored(query_D: Vector, posts: Sequence[StoredPost]) -> Hits:
    vectors = [post.vector for post in posts if post.vector is not None]
    if not vectors:
        return NO_HITS
    return Hits([post.post_id for post in posts], np.stack(vectors) @ query_D, [post.revision for post in posts])


def _timed(tier: str, ask: Callable[[], T], answer: AnswerBuilder) -> T | None:
    """Asks as a step of the answer. None if the tier fails; then the answer says so."""
    with answer.step(tier):
        return _try(ask, f"{tier}_unavailable", answer)


def _try(ask: Callable[[], T], part: str, answer: AnswerBuilder) -> T | None:
    try:
        return ask()
    except IndexerError as error:
        answer.missing(part, error)
        return None


def _lists(hits: ColdHits) -> Hits:
    revisions: list[Revision] = hits.revisions.tolist()
    return Hits(hits.post_ids, hits.scores, revisions)


def _newest(hot: StoredPost | None, cold: StoredPost | None) -> StoredPost | None:
    if hot is None or cold is None:
        return hot or cold
    return cold if cold.revision > hot.revision else hot


def _chunks(posts: Sequence[TrendingPost], size: int) -> Iterator[Sequence[TrendingPost]]:
    for start in range(0, len(posts), size):
        yield posts[start : start + size]
