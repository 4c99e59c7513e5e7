"""The retriever: answers one request with a query, a search in both tiers and a merge. Knows neither HTTP nor Kafka.

One retriever serves one generation. Its query encoder and its tiers belong together and never change.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

from indexer.errors import IndexerError
from indexer.tiers import ColdReader, HotTier, StoredPost
from retriever.answer.answer_builder import AnswerBuilder
from retriever.answer.members import Members
from retriever.answer.merge import NO_CANDIDATES, Merged
from retriever.answer.query import Query, member_query, text_query
from retriever.answer.tier_search import TierSearch
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RetrieverUnavailable
from retriever.feed.trending_lists import TrendingLists
from retriever.settings import MAX_IN_FLIGHT
from schemas.api import HotPost, PostResponse, RetrieveRequest, RetrieveResponse, TierPost
from schemas.ids import Generation, MemberId, PostId
from schemas.times import EPOCH


class Retriever:
    """Any thread may call the methods."""

    def __init__(
        self,
        generation: Generation,
        cold: ColdReader,
        hot: HotTier,
        *,
        encoder: WarmingEncoder,
        trending: TrendingLists,
        hot_problem: Callable[[], str | None],
    ) -> None:
        """`hot_problem` returns a sentence until the hot tier has caught up, and None from then on."""
        self.generation = generation
        self._cold = cold
        self._hot = hot
        self._encoder = encoder
        self._trending = trending
        self._hot_problem = hot_problem
        self._members = Members(cold)
        self._tiers = TierSearch(cold, hot, MAX_IN_FLIGHT)

    def close(self) -> None:
        self._tiers.close()

    def forget_expired_members(self) -> None:
        """Frees the memory of members that were cached for an outage and are too old by now."""
        self._members.forget_expired()

    def problems(self) -> list[str]:
        """A sentence for each part that is not ready yet and without which answers are incomplete."""
        return [problem for problem in (self._encoder.problem, self._hot_problem()) if problem is not None]

    def retrieve(self, request: RetrieveRequest) -> RetrieveResponse:
        """Raises RetrieverUnavailable if neither tier answers."""
        answer = AnswerBuilder(self.generation)
        query = self._query(request, answer)
        problem = self._hot_problem()
        if problem is not None:
            answer.missing("hot_incomplete", problem)
        return answer.finish(NO_CANDIDATES if query is None else self._candidates(query, request.k, answer))

    def post(self, post_id: PostId) -> PostResponse:
        """One post as each tier holds it. Raises RetrieverUnavailable."""
        try:
            cold, hot = self._cold.posts([post_id])[0], self._hot.posts([post_id])[0]
        except IndexerError as error:
            raise RetrieverUnavailable(str(error)) from error
        return PostResponse(post_id=post_id, generation=self.generation, cold=_tier_post(cold), hot=_tier_post(hot))

    def hot_posts(self) -> Iterator[HotPost]:
        """All live posts of the hot tier, in any order."""
        for post in self._hot.scroll_posts():
            yield HotPost(
                post_id=post.post_id,
                revision=post.revision,
                author_id=post.author_id,
                created_at=EPOCH + timedelta(microseconds=post.created_at_us),
            )

    def hot_count(self) -> int:
        return self._hot.count()

    def _query(self, request: RetrieveRequest, answer: AnswerBuilder) -> Query | None:
        """None if no candidates may be given."""
        if request.text is not None:
            return text_query(request, request.text, self._encoder, answer)
        return member_query(request, MemberId(request.member_id or ""), self._members, answer)

    def _candidates(self, query: Query, k: int, answer: AnswerBuilder) -> Merged:
        if query.vector_D is not None:
            return self._tiers.nearest(query.vector_D, query, k, answer)
        answer.note("trending")
        trending = self._trending.ranked()
        if not trending:
            answer.note("nothing_trending")
        return self._tiers.trending(trending, query, k, answer)


def _tier_post(post: StoredPost | None) -> TierPost:
    if post is None:
        return TierPost(present=False)
    if post.deleted:
        return TierPost(present=True, revision=post.revision, deleted=True)
    return TierPost(
        present=True,
        revision=post.revision,
        deleted=False,
        author_id=post.author_id,
        language=post.language,
        created_at=EPOCH + timedelta(microseconds=post.created_at_us),
    )
