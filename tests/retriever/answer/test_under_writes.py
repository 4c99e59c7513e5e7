"""Many threads ask while records come in: no answer mixes posts up, and when the writes have ended, kept and fresh
answers are the same."""

from threading import Event, Thread

import numpy as np

from indexer.brute_force import BruteColdTier
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import Filters, HotRecord, IndexRecord
from retriever.answer.question import Answer, Question
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from schemas.embeddings import PostEmbedding, Vector, unpack_vector
from schemas.ids import Micros, Offset, Partition
from tests.kit.data.embeddings import DIMENSION, GENERATION, NOW, post_embedding, vectors
from tests.kit.retrievers import LONG_S, QueryModel

ONE = Partition(0)
NUM_POSTS = 300
NUM_WRITES = 2000
QUERIES = vectors(20, seed=9)


class Written:
    """The tiers, and all that was ever written to them."""

    def __init__(self) -> None:
        self.ids = IdTable()
        self.cold = BruteColdTier(DIMENSION)
        self.hot = MatrixHotTier(DIMENSION, HotSettings(window_s=1e6, capacity=120, device="cpu"), self.ids)
        self.hot.begin({ONE: Offset(NUM_POSTS)})
        self.vectors: dict[tuple[str, int], Vector] = {}
        self.records = [self._record(offset) for offset in range(NUM_POSTS + NUM_WRITES)]
        self.index(0, NUM_POSTS)

    def _record(self, offset: int) -> HotRecord:
        draw = np.random.default_rng(offset)
        post_id = f"p{offset if offset < NUM_POSTS else draw.integers(NUM_POSTS)}"
        post = post_embedding(post_id, offset + 1, deleted=bool(draw.integers(6) == 0))
        self._remember(post)
        return HotRecord(post, ONE, Offset(offset), Micros(NOW + offset))

    def _remember(self, post: PostEmbedding) -> None:
        vector = unpack_vector(post.vector)
        if vector is not None:
            self.vectors[post.post_id, post.revision] = vector

    def index(self, first: int, end: int) -> None:
        self.cold.write("post", [IndexRecord(*record[:3]) for record in self.records[first:end]])
        self.cold.reached({ONE: Offset(end)})

    def write_all(self) -> None:
        """The index stays some records behind the feed."""
        for first in range(NUM_POSTS, NUM_POSTS + NUM_WRITES, 20):
            self.hot.apply(self.records[first : first + 20])
            if first >= NUM_POSTS + 60:
                self.index(first - 60, first - 40)

    def new_retriever(self, kept_bytes: int) -> Retriever:
        members = MemberStore(1, DIMENSION, indexed=dict, feed_problem=lambda: None)
        return Retriever(
            GENERATION,
            DIMENSION,
            self.cold,
            self.hot,
            ids=self.ids,
            members=members,
            encoder=WarmingEncoder(QueryModel),
            trending=TrendingLists(),
            feed_problem=lambda: None,
            kept_bytes=kept_bytes,
        )

    def wrong_in(self, answer: Answer, query_D: Vector) -> list[str]:
        """Candidates whose score is not that of the revision that they are said to be."""
        assert answer.revisions is not None
        copies = zip(answer.post_ids, answer.revisions, answer.scores_C.tolist(), strict=True)
        return [
            f"{post_id}/{revision}"
            for post_id, revision, score in copies
            if (post_id, revision) not in self.vectors
            or abs(float(self.vectors[post_id, revision] @ query_D) - score) > 1e-5
        ]


def question(number: int, k: int = 50) -> Question:
    filters = Filters(exclude_posts=frozenset({f"p{number % 7}"})) if number % 3 == 0 else Filters()
    vector_D = QUERIES[number % len(QUERIES)]
    return Question(vector_D=vector_D, k=k, filters=filters, timeout_s=LONG_S, columns=frozenset({"revision"}))


def test_many_ask_while_records_come_in() -> None:
    written = Written()
    keeping, asking = written.new_retriever(20_000_000), written.new_retriever(0)
    ended = Event()
    problems: list[str] = []
    whole: list[bool] = []
    """Some are partial: while they were asked, the hot tier dropped more than the index is behind."""

    def ask(thread: int) -> None:
        number = thread
        while not ended.is_set():
            number += 1
            answer = keeping.answer(question(number))
            problems.extend(written.wrong_in(answer, QUERIES[number % len(QUERIES)]))
            if len(set(answer.post_ids)) < len(answer.post_ids):
                problems.append(f"a post is there twice: {sorted(answer.post_ids)}")
            whole.append(not answer.partial)

    def tidy() -> None:
        while not ended.wait(0.01):
            keeping.tidy()

    threads = [Thread(target=ask, args=(100 * thread,)) for thread in range(4)] + [Thread(target=tidy)]
    for thread in threads:
        thread.start()
    written.write_all()
    ended.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert any(whole)
    assert keeping.kept.found > 0
    for number in range(60):
        kept, fresh = (retriever.answer(question(number)) for retriever in (keeping, asking))
        assert (kept.post_ids, kept.revisions) == (fresh.post_ids, fresh.revisions)
    keeping.close()
    asking.close()
