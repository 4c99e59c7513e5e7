"""The best trending posts that a tier holds alive and that pass the filters: the answer where there is no vector.

The ranking is cut into pages. What the cold tier holds of a page's posts is kept, by the same rule as its answers, and
it is asked again only for posts that come into the lists. So a question costs one search in the hot tier, among the
posts of the page. Where the hot tier holds everything, the cold one is asked only if that search fails.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from indexer.errors import IndexerError, TierLate
from indexer.tiers import ColdHits, ColdReader, Filters, HotAnswer, HotQuery, Offsets, StoredPost
from retriever.answer.answer_builder import HOT_PROBLEM, NEITHER, Candidates, cold_problem
from retriever.answer.cold.cold_answers import ColdAnswer, ColdAnswerMaker
from retriever.answer.hot_batches import HotBatches
from retriever.answer.hot_state import HotState
from retriever.answer.inquiry import Inquiry, Query
from retriever.answer.merge import NOT_HELD, without_hot
from retriever.answer.question import TIERS
from retriever.answer.wholeness import covers, reasons
from retriever.errors import RetrieverUnavailable
from retriever.feed.trending_lists import TrendingLists, TrendingPost
from retriever.reasons import Code, Reason
from schemas.ids import PostId, Revision

PAGE: Final = 4096
ASK_ANEW_S: Final = 1.0
"""While the cold tier's position stands still, it is asked no sooner again about the same posts."""
_TIER: Final = TIERS.index("trending")
_MIN_TIMEOUT_S: Final = 0.001


class _Page(NamedTuple):
    answer: ColdAnswer
    """In the order of the ranking, with its scores. The revision of a post that the cold tier does not hold is
    NOT_HELD."""
    ids: frozenset[str]
    posts: Sequence[StoredPost | None]
    """As the cold tier holds them."""


class _Looked(NamedTuple):
    """One page as both tiers hold it."""

    page: _Page
    hot: HotAnswer
    problems: list[Reason]


class TrendingPosts:
    """Any thread may call `search`."""

    def __init__(
        self,
        lists: TrendingLists,
        cold: ColdReader,
        hot_batches: HotBatches,
        hot_state: HotState,
        *,
        maker: ColdAnswerMaker,
        dimension: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lists = lists
        self._cold = cold
        self._hot = hot_batches
        self._maker = maker
        self._no_vector_D = np.zeros(dimension, np.float32)
        self._hot_state = hot_state
        self._clock = clock
        self._is_void = False
        """What is known of the cold tier must be asked anew."""
        self._lock = Lock()
        # All of the following is read and changed under the lock.
        self._ranked: Sequence[TrendingPost] = ()
        self._pages: dict[tuple[int, bool], _Page] = {}
        """Of this ranking, by the rank of their first post, and by whether all of them are left to the hot tier."""
        self._known: dict[PostId, StoredPost | None] = {}
        """What the cold tier said about listed posts."""
        self._position: Offsets = {}
        """The cold tier's position before it was first asked about them."""
        self._asked_at_s = -math.inf
        """When that was."""

    def forget(self) -> None:
        """Does not wait for a question that asks the cold tier now."""
        self._is_void = True

    def close(self) -> None:
        """Call it when nobody asks any more: what it holds keeps numbers of the table of ids."""
        self._pages, self._known = {}, {}

    def search(self, inquiry: Inquiry, query: Query) -> None:
        """Sets the candidates: the first k posts, in the order of the ranking. Raises RetrieverUnavailable if neither
        tier answers."""
        builder, k = inquiry.builder, inquiry.question.k
        builder.note(Code.TRENDING, "the candidates are what is popular now")
        ranked = self._lists.ranked()
        if not ranked:
            builder.note(Code.NOTHING_TRENDING, "nothing is popular now")
        chosen: list[tuple[TrendingPost, Revision]] = []
        for first in range(0, len(ranked), PAGE):
            looked = self._look(ranked, first, query.filters, inquiry)
            for problem in looked.problems:
                builder.missing(problem)
            passing = islice(_passing(looked, query.filters), k - len(chosen))
            chosen += [(ranked[first + row], revision) for row, revision in passing]
            if len(chosen) == k:
                break
        inquiry.candidates = Candidates(
            [post.post_id for post, _ in chosen],
            np.array([post.score for post, _ in chosen], np.float32),
            np.full(len(chosen), _TIER, np.uint8),
            [revision for _, revision in chosen] if "revision" in inquiry.question.columns else None,
        )

    def _look(self, ranked: Sequence[TrendingPost], first: int, filters: Filters, inquiry: Inquiry) -> _Looked:
        """Asks the cold tier anew if what was kept is outdated. A hot tier that hangs leaves half of the time for
        that."""
        deadline_s, before_hot_s = inquiry.deadline_s, inquiry.before_hot_s
        page, problem = self._page(ranked, first, inquiry, before_hot_s, new=False)
        feed_problem = self._hot_state.feed_problem()
        hot_until_s = (self._clock() + deadline_s) / 2 if problem is None else deadline_s
        hot = self._ask_hot(page, filters, inquiry, hot_until_s)
        if problem is None and (hot is None or not covers(hot.floor, page.answer.position)):
            cold_until_s = deadline_s if hot is None else before_hot_s
            page, problem = self._page(ranked, first, inquiry, cold_until_s, new=True)
            hot = hot and self._ask_hot(page, filters, inquiry, deadline_s)
        if hot is None:
            if problem is not None:
                raise RetrieverUnavailable(NEITHER)
            return _Looked(page, without_hot(page.answer.columns), [HOT_PROBLEM])
        if problem is None:
            return _Looked(page, hot, reasons(hot.floor, page.answer.position, feed_problem))
        return _Looked(page, hot, [problem] if feed_problem is None else [feed_problem, problem])

    def _ask_hot(self, page: _Page, filters: Filters, inquiry: Inquiry, until_s: float) -> HotAnswer | None:
        """Which posts of the page are alive there and pass the filters. None if the hot tier fails."""
        only = page.ids if filters.only_posts is None else page.ids & filters.only_posts
        query = HotQuery(self._no_vector_D, PAGE, filters._replace(only_posts=only), page.answer.columns.numbers_C)
        try:
            with inquiry.builder.step("hot"):
                return self._hot.submit(query).wait(until_s)[0]
        except IndexerError:
            return None

    def _page(
        self, ranked: Sequence[TrendingPost], first: int, inquiry: Inquiry, until_s: float, *, new: bool
    ) -> tuple[_Page, Reason | None]:
        """The posts of a page as the cold tier holds them. If it fails, a page without them, and why."""
        posts = ranked[first : first + PAGE]
        with inquiry.builder.step("cold"):
            if not self._lock.acquire(timeout=self._left_s(until_s)):
                return self._make_page(posts, {}, {}), cold_problem(TierLate("another question asks it already"))
            try:
                return self._kept_page(ranked, first, until_s, new), None
            except IndexerError as error:
                return self._make_page(posts, {}, {}), cold_problem(error)
            finally:
                self._lock.release()

    def _kept_page(self, ranked: Sequence[TrendingPost], first: int, until_s: float, new: bool) -> _Page:
        posts = ranked[first : first + PAGE]
        # That is right for as long as the hot tier answers and its floor does not move. Otherwise a new page is wanted.
        left_to_hot = not new and self._hot_state.holds_everything()
        if self._is_void:
            self._is_void, new = False, True
        elif new:
            new = self._may_say_more(until_s)
        if new:
            self._known = {}
        if new or ranked is not self._ranked:
            listed = {post.post_id for post in ranked}
            self._known = {post_id: post for post_id, post in self._known.items() if post_id in listed}
            self._ranked, self._pages = ranked, {}
        page = self._pages.get((first, left_to_hot))
        if page is None:
            if left_to_hot:
                page = self._make_page(posts, {}, {})
            else:
                self._ask_cold([post.post_id for post in posts if post.post_id not in self._known], until_s)
                page = self._make_page(posts, self._known, self._position)
            self._pages[first, left_to_hot] = page
        return page

    def _may_say_more(self, until_s: float) -> bool:
        """Whether the cold tier may know more of the posts than when it was asked. An index that is behind would
        otherwise be asked about all of them for every question."""
        if self._clock() - self._asked_at_s >= ASK_ANEW_S:
            return True
        return self._cold.position(timeout_s=self._left_s(until_s)) != self._position

    def _ask_cold(self, ids: list[PostId], until_s: float) -> None:
        if not self._known:
            self._asked_at_s = self._clock()
            self._position = self._cold.position(timeout_s=self._left_s(until_s))
        self._known.update(zip(ids, self._cold.posts(ids, timeout_s=self._left_s(until_s)), strict=True))

    def _make_page(
        self, posts: Sequence[TrendingPost], known: Mapping[PostId, StoredPost | None], position: Offsets
    ) -> _Page:
        ids = [post.post_id for post in posts]
        stored = [known.get(post_id) for post_id in ids]
        revisions = np.array([NOT_HELD if post is None else post.revision for post in stored], np.int64)
        hits = ColdHits(ids, np.array([post.score for post in posts], np.float32), revisions, position)
        return _Page(self._maker.make(hits, len(ids) + 1), frozenset(ids), stored)

    def _left_s(self, until_s: float) -> float:
        return max(until_s - self._clock(), _MIN_TIMEOUT_S)


def _passing(looked: _Looked, filters: Filters) -> Iterator[tuple[int, Revision]]:
    """Rows of the page whose newest copy is alive and passes the filters, with its revision."""
    columns, hot = looked.page.answer.columns, looked.hot
    hot_is_newer = (hot.cold_revisions != NOT_HELD) & (hot.cold_revisions >= columns.revisions_C)
    is_hit = np.isin(columns.numbers_C, hot.numbers)
    for row in np.flatnonzero(np.where(hot_is_newer, is_hit, columns.revisions_C != NOT_HELD)).tolist():
        post = looked.page.posts[row]
        if hot_is_newer[row]:
            yield row, Revision(int(hot.cold_revisions[row]))
        elif post is not None and _passes(post, filters):
            yield row, post.revision


def _passes(post: StoredPost, filters: Filters) -> bool:
    """Whether a post that no search returned passes. The tiers apply the same filters before scoring."""
    return (
        not post.deleted
        and (not filters.languages or post.language in filters.languages)
        and (filters.created_after_us is None or post.created_at_us > filters.created_after_us)
        and (filters.created_before_us is None or post.created_at_us < filters.created_before_us)
        and post.author_id not in filters.exclude_authors
        and (filters.only_authors is None or post.author_id in filters.only_authors)
        and post.post_id not in filters.exclude_posts
        and (filters.only_posts is None or post.post_id in filters.only_posts)
    )
