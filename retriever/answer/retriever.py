"""The retriever: makes queries of questions, searches both tiers, and answers. Knows neither HTTP nor gRPC nor Kafka.

One retriever serves one generation. Its query encoder and its tiers belong together and never change.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

import numpy as np

from indexer.errors import IndexerError
from indexer.id_table import IdTable
from indexer.tiers import ColdReader, HotTier, Offsets, StoredPost
from retriever.answer import wholeness
from retriever.answer.answer_builder import HOT_PROBLEM, AnswerBuilder, Candidates
from retriever.answer.cold.cold_answers import ColdAnswerMaker
from retriever.answer.cold.cold_searches import ColdSearches
from retriever.answer.cold.kept_answers import KeptAnswers
from retriever.answer.cold.made_ahead import MadeAhead
from retriever.answer.cold.replay_watch import ReplayWatch
from retriever.answer.columns import Columns
from retriever.answer.combine import How
from retriever.answer.exact_search import ExactSearch, GivenAnswer
from retriever.answer.figures import Figures
from retriever.answer.hot_batches import HotBatches
from retriever.answer.hot_state import HotState
from retriever.answer.inquiry import Inquiry, Query, deadline_s
from retriever.answer.members import Members
from retriever.answer.nearest_search import NearestSearch
from retriever.answer.online_recall import OnlineRecall, RecallCounts
from retriever.answer.queries import Queries
from retriever.answer.question import DEFAULT_TIMEOUT_S, Answer, PostVectors, Question
from retriever.answer.stored_posts import StoredPosts
from retriever.answer.trending_posts import TrendingPosts
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from retriever.reasons import Code, Reason
from schemas.api import GenerationReadiness, HotPost, PostResponse, ProblemCode, TierPost
from schemas.canaries import asks_for_canaries
from schemas.ids import Generation, PostId, Revision
from schemas.times import EPOCH

_KEPT_BYTES = 512 * 1024 * 1024
_LOOK_S = 5.0
"""For people who look at what the tiers hold: longer than a question waits. For each step of a long list."""
_NOTHING_SAID = Reason(Code.COLD_UNAVAILABLE, "the cold tier has not said yet how far it has written")


class Retriever:
    """Any thread may call the methods."""

    def __init__(
        self,
        generation: Generation,
        dimension: int,
        cold: ColdReader,
        hot: HotTier,
        *,
        ids: IdTable,
        members: MemberStore,
        encoder: WarmingEncoder,
        trending: TrendingLists,
        feed_problem: Callable[[], Reason | None],
        cold_refuses: Callable[[], bool] = lambda: False,
        replayed: Callable[[], object] = lambda: None,
        kept_bytes: int = _KEPT_BYTES,
        forget_after_s: float = math.inf,
        recall: OnlineRecall | None = None,
        exact_cold: ColdReader | None = None,
        combine_by: How = "quota",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ids` is the table of the hot tier. `feed_problem` gives None if the feed has reached the end of the topic a
        moment ago, else the reason why the hot tier may not hold the newest records. `cold_refuses` says whether the
        cold tier is left alone now because it failed; then no question waits for its turn there. What `replayed` gives
        has changed if records were written to the cold tier again. What nobody has asked for in `forget_after_s` is not
        kept. With `recall` and `exact_cold`, a reader for that alone, some answers are measured.
        `combine_by`: how the lists of several vectors of a member become one."""
        self.generation = generation
        self.kept = KeptAnswers(kept_bytes, clock)
        self._forget_after_s = forget_after_s
        self._dimension, self._cold, self._hot, self._ids = dimension, cold, hot, ids
        self._encoder, self._clock = encoder, clock
        self._position: Offsets | None = None
        self._replays = ReplayWatch(replayed)
        self._hot_state = state = HotState(hot, feed_problem)
        self._maker = maker = ColdAnswerMaker(ids)
        self._hot_batches = batches = HotBatches(hot, clock)
        self._cold_searches = searches = ColdSearches(cold, self.kept, maker, state, refuses=cold_refuses, clock=clock)
        self._ahead = MadeAhead(searches, combine_by=combine_by)
        self._store = members
        members.watch(self._ahead.member_changed)
        self._posts = StoredPosts(hot, cold, state, self._unread, clock)
        self._columns = Columns(self._posts)
        self._queries = Queries(Members(members, cold, clock), self._posts, encoder, dimension, clock)
        self._nearest = NearestSearch(
            searches, batches, state, kept=self.kept, maker=maker, ids=ids, combine_by=combine_by, clock=clock
        )
        self._trending_lists = trending
        self._recall, self._recall_counts = recall, RecallCounts()
        self._exact = (
            None if exact_cold is None else ExactSearch(exact_cold, hot, state, maker, ids, combine_by=combine_by)
        )
        self._trending = TrendingPosts(trending, cold, batches, state, maker=maker, dimension=dimension, clock=clock)

    def close(self) -> None:
        """Gives the numbers of kept answers back to the table of ids, which others may go on using."""
        self._hot_batches.close()
        self._cold_searches.close()
        if self._exact is not None:
            self._exact.close()
        self.forget_kept()
        self._trending.close()
        self._maker.release_dropped()

    def forget_kept(self) -> None:
        """Call it when the log has lost records and others may get their offsets: what was asked of the cold tier
        before is of another log. Also when records were written to the cold tier again. Any thread; returns at
        once."""
        self.kept.forget_all()
        self._trending.forget()

    def check_generation(self, generation: str | None) -> None:
        """Raises RequestRefused if a request names another one."""
        if generation not in (None, self.generation):
            raise RequestRefused(
                f"generation: {generation} is not served; {self.generation} is", code=ProblemCode.UNKNOWN_GENERATION
            )

    def answer(self, question: Question) -> Answer:
        """Raises RequestRefused, which names the field, and RetrieverUnavailable if neither tier answers."""
        return self.answer_batch([question])[0]

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """In the order of the questions, of which there are at most 64. The hot tier is searched once for all of them.
        If one of them is refused, all are."""
        now_s = self._clock()
        inquiries = [self._inquiry(question, now_s) for question in questions]
        self._queries.make(inquiries)
        self._nearest.search(inquiries)
        return [self._finish(inquiry) for inquiry in inquiries]

    def vectors(
        self, ids: Sequence[PostId], timeout_s: float = DEFAULT_TIMEOUT_S, generation: Generation | None = None
    ) -> PostVectors:
        """Raises RetrieverUnavailable if a post that the hot tier does not hold cannot be looked up in time, and if
        neither tier holds it but there may be records that neither has read."""
        self.check_generation(generation)
        found = self._posts.find(ids, deadline_s(self._clock(), timeout_s), with_vectors=True)
        if found.problems:
            raise RetrieverUnavailable(f"{found.problems[0].detail}; try again", code=found.problems[0].code)
        vectors_CD = np.zeros((len(ids), self._dimension), np.float32)
        revisions = [Revision(0)] * len(ids)
        for row, post in enumerate(found.posts):
            if post is not None and post.vector is not None:
                vectors_CD[row], revisions[row] = post.vector, post.revision
        return PostVectors(self.generation, list(ids), revisions, vectors_CD, found.unread)

    def post(self, post_id: PostId) -> PostResponse:
        """One post as each tier holds it. Raises RetrieverUnavailable."""
        try:
            cold = self._cold.posts([post_id], timeout_s=_LOOK_S)[0]
            hot = self._hot.posts([post_id], timeout_s=_LOOK_S)[0]
        except IndexerError as error:
            raise RetrieverUnavailable("a tier cannot answer now; try again") from error
        return PostResponse(post_id=post_id, generation=self.generation, cold=_tier_post(cold), hot=_tier_post(hot))

    def hot_posts(self, generation: Generation | None = None) -> Iterator[HotPost]:
        """All live posts of the hot tier, in any order. Raises RetrieverUnavailable if the tier hangs, also after some
        of them."""
        self.check_generation(generation)
        try:
            for post in self._hot.scroll_posts(timeout_s=_LOOK_S):
                yield HotPost(
                    post_id=post.post_id,
                    revision=post.revision,
                    author_id=post.author_id,
                    created_at=EPOCH + timedelta(microseconds=post.created_at_us),
                )
        except IndexerError as error:
            raise RetrieverUnavailable(f"{HOT_PROBLEM.detail}; try again", code=HOT_PROBLEM.code) from error

    def figures(self) -> list[Figures]:
        ready = not self.problems()
        recall = self._recall_counts.figures()
        return [
            Figures(
                self.generation,
                ready,
                self._hot.count(),
                self._hot.num_tombstones(),
                self._store.counts(),
                self.kept.counts(),
                self._hot_state.floor(),
                self._position or {},
                self._trending_lists.newest_us(),
                recall,
            )
        ]

    def problems(self) -> list[str]:
        """A sentence for each part without which answers are incomplete. Does not block: the cold tier's position is
        the one that `tidy` read last. Positions only grow, so an older one never makes an answer seem whole."""
        found = self._unread()
        if (members_problem := self._store.problem()) is not None:
            found.append(members_problem)
        sentences = [self._encoder.problem, *(reason.detail for reason in found)]
        return list(dict.fromkeys(sentence for sentence in sentences if sentence is not None))

    def beside(self) -> Mapping[Generation, GenerationReadiness]:
        return {}

    def _unread(self) -> list[Reason]:
        """Why there may be records of posts that neither tier holds. Empty if there are none."""
        floor, feed_problem = self._hot_state.floor(), self._hot_state.feed_problem()
        position = self._position
        if position is None and not wholeness.holds_everything(floor):
            return [_NOTHING_SAID] if feed_problem is None else [feed_problem]
        return wholeness.reasons(floor, position or {}, feed_problem)

    def tidy(self) -> None:
        """Call it about each second, from one thread. Reads how far the cold tier has written, forgets what it said
        before records were written to it again, and frees the memory of kept answers that no question can use any
        more, and of what nobody has asked for lately."""
        with suppress(IndexerError):
            # If it fails, the older position stays.
            self._position = self._cold.position(timeout_s=_LOOK_S)
        if self._replays.has_outdated_answers():
            self.forget_kept()
            self._store.forget_cold_copies()
        if floor := self._hot_state.floor():
            self.kept.forget_outdated(floor)
        self.kept.forget_unused(self._forget_after_s)
        self._encoder.forget_unused(self._forget_after_s)
        self._maker.release_dropped()
        self.kept.weigh_ids(len(self._ids) - self._hot.count())

    def _inquiry(self, question: Question, now_s: float) -> Inquiry:
        self.check_generation(question.generation)
        until_s = deadline_s(now_s, question.timeout_s)
        before_hot_s = until_s - self._hot_batches.time_for(question.timeout_s)
        return Inquiry(question, until_s, before_hot_s, AnswerBuilder(self.generation))

    def _finish(self, inquiry: Inquiry) -> Answer:
        query = inquiry.query
        if query is not None and query.vector_D is None:
            self._trending.search(inquiry, query)
        elif query is not None:
            self._ahead.remember(inquiry.question)
        candidates = inquiry.candidates or Candidates()
        if query is not None:
            self._offer_for_recall(inquiry, query, candidates)
        self._columns.add(inquiry, candidates)
        return inquiry.builder.finish(candidates)

    def _offer_for_recall(self, inquiry: Inquiry, query: Query, candidates: Candidates) -> None:
        """Of partial answers it is known that something is missing. Those to the monitor say nothing of what members
        get: they hold a canary or two, which hardly any search misses."""
        recall, exact, k = self._recall, self._exact, inquiry.question.k
        if recall is None or exact is None or not recall.wants():
            return
        if asks_for_canaries(inquiry.question.filters.only_authors):
            return
        if (parts := query.parts) and not inquiry.builder.is_partial:
            lowest_score = float(candidates.scores_C[-1]) if len(candidates.scores_C) else math.inf
            given = GivenAnswer(parts, query.filters, k, candidates.post_ids, lowest_score)
            recall.offer(self.generation, self._recall_counts, partial(exact.recalls, given))


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
