"""The heart of the retriever as a property: whatever is written, deleted, hidden, indexed late, dropped from the hot
tier or read again, an answer that is not partial is the best of the newest records, whether its cold part was kept or
not. And an answer is partial only if a part is missing.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from indexer.brute_force import BruteColdTier
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import Filters, HotRecord, HotTier, IndexRecord
from retriever.answer import combine, nearest_search
from retriever.answer.combine import How
from retriever.answer.question import Answer, Question
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.answer.wholeness import covers
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from retriever.reasons import Code, Reason
from schemas.embeddings import Interest, MemberEmbedding, PostEmbedding, unpack_interests, unpack_vector
from schemas.ids import MemberId, Micros, Offset, Partition
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION, GENERATION, NOW, member_embedding, post_embedding, vectors
from tests.kit.retrievers import LONG_S, QueryModel

PARTITIONS: Final = [Partition(0), Partition(1)]
POSTS: Final = [f"p{number}" for number in range(12)]
MEMBERS: Final = ["m0", "m1", "m2"]
SECOND: Final = 1_000_000
CAPACITY: Final = 6
"""Fewer than there are posts, so that the hot tier often drops some."""
WINDOW_S: Final = 20.0
BEHIND: Final = Reason(Code.HOT_BEHIND, "the feed has not read everything")


def partition_of(post_id: str) -> Partition:
    return PARTITIONS[zlib.crc32(post_id.encode()) % len(PARTITIONS)]


def post(post_id: str, revision: int) -> PostEmbedding:
    """One revision of a post is always the same."""
    chance = zlib.crc32(f"{post_id}/{revision}".encode())
    return post_embedding(
        post_id,
        revision,
        deleted=chance % 4 == 0,
        author=MEMBERS[chance % 3],
        language=("en", "de", None)[chance // 3 % 3],
        created_at_us=NOW + chance // 9 % 5 * SECOND,
    )


FILTERS: Final = st.builds(
    Filters,
    languages=st.sampled_from([frozenset(), frozenset({"en"}), frozenset({"en", "de"})]),
    created_after_us=st.sampled_from([None, None, Micros(NOW + SECOND)]),
    exclude_authors=st.sampled_from([frozenset(), frozenset({"m1"})]),
    exclude_posts=st.sampled_from([frozenset(), frozenset(POSTS[:3])]),
    created_before_us=st.sampled_from([None, None, Micros(NOW + 3 * SECOND)]),
    only_authors=st.sampled_from([None, None, frozenset({"m0", "m2"})]),
    only_posts=st.sampled_from([None, None, frozenset(POSTS[:9])]),
)
QUESTIONS: Final = st.builds(
    dict,
    who=st.sampled_from([*MEMBERS, 100, 101]),
    k=st.integers(1, 8),
    filters=st.one_of(st.just(Filters()), FILTERS),
    hide_acted=st.booleans(),
    hide_seen=st.booleans(),
    own_posts=st.booleans(),
)


FEW_POSTS: Final = st.sets(st.sampled_from(POSTS), max_size=3).map(sorted)
LIKELY: Final = st.sampled_from([True, True, True, False])


class Log:
    """The records of all partitions, and how far each reader has come."""

    def __init__(self) -> None:
        self.records: dict[Partition, list[HotRecord]] = {partition: [] for partition in PARTITIONS}
        self.revisions: dict[str, int] = {}
        self.fed = dict.fromkeys(PARTITIONS, 0)
        self.indexed = dict.fromkeys(PARTITIONS, 0)
        self.now_us = int(NOW)

    def publish(self, post_id: str, revision: int) -> None:
        partition = partition_of(post_id)
        place = partition, Offset(len(self.records[partition]))
        self.records[partition].append(HotRecord(post(post_id, revision), *place, Micros(self.now_us)))
        self.revisions[post_id] = revision

    def is_fed(self) -> bool:
        return all(self.fed[partition] == len(records) for partition, records in self.records.items())

    def best(self, vector_D: np.ndarray, k: int, filters: Filters) -> list[tuple[str, float, int]]:
        """By hand, over the newest revision of each post."""
        scored = []
        for post_id, revision in self.revisions.items():
            embedding = post(post_id, revision)
            vector = unpack_vector(embedding.vector)
            if vector is not None and passes(embedding, filters):
                scored.append((post_id, float(vector @ vector_D), revision))
        return sorted(scored, key=by_score)[:k]

    def best_of_interests(
        self, vector_D: np.ndarray, interests: Sequence[Interest], k: int, filters: Filters, how: How
    ) -> list[tuple[str, float, int]]:
        """By hand: the whole lists of the one vector, which weighs as much as all interests, and of each of these; and
        of each post its first place in any of them."""
        half = sum(interest.weight for interest in interests)
        total = 2 * half
        copies: dict[str, list[tuple[float, tuple[str, float, int]]]] = {}
        for interest in (Interest(vector_D, half), *interests):
            for rank, copy in enumerate(self.best(interest.vector_D, len(POSTS), filters)):
                place = (rank + 1) / (interest.weight / total) if how == "quota" else -copy[1]
                copies.setdefault(copy[0], []).append((place, copy))
        first = [min(of_post, key=lambda placed: (placed[0], -placed[1][1])) for of_post in copies.values()]
        chosen = sorted(first, key=lambda placed: (placed[0], *by_score(placed[1])))[:k]
        return sorted((copy for _, copy in chosen), key=by_score)


def by_score(copy: tuple[str, float, int]) -> tuple[float, str]:
    return -copy[1], copy[0]


def passes(embedding: PostEmbedding, filters: Filters) -> bool:
    return (
        (not filters.languages or embedding.language in filters.languages)
        and (filters.created_after_us is None or embedding.created_at_us > filters.created_after_us)
        and (filters.created_before_us is None or embedding.created_at_us < filters.created_before_us)
        and embedding.author_id not in filters.exclude_authors
        and (filters.only_authors is None or embedding.author_id in filters.only_authors)
        and embedding.post_id not in filters.exclude_posts
        and (filters.only_posts is None or embedding.post_id in filters.only_posts)
    )


class RetrieverOverALog(RuleBasedStateMachine):
    """Two retrievers share the tiers. One keeps cold answers, and the other does not."""

    how: How = "quota"
    """How they combine the lists of a member's vectors."""

    def new_hot_tier(self, ids: IdTable) -> HotTier:
        return BruteHotTier(DIMENSION, HotSettings(window_s=WINDOW_S, capacity=CAPACITY), ids)

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.ids = IdTable()
        self.cold = BruteColdTier(DIMENSION)
        self.hot = self.new_hot_tier(self.ids)
        self.begin_in_the_middle()
        self.members: dict[str, MemberEmbedding] = {}
        self.asked: list[dict[str, Any]] = []
        self.member_offset = 0
        self.store = self.new_member_store()
        self.keeping, self.asking = (self.new_retriever(kept_bytes) for kept_bytes in (1_000_000, 0))

    def begin_in_the_middle(self) -> None:
        """The cold tier holds all posts, and the hot tier begins after them."""
        for post_id in POSTS:
            self.log.publish(post_id, 1)
        self.index_all()
        ends = {partition: Offset(len(records)) for partition, records in self.log.records.items()}
        self.hot.begin(ends)
        self.log.fed.update(ends)

    def new_member_store(self) -> MemberStore:
        """With room for two of the three members. The cold tier knows all."""
        # Behind the newest record, which the cold tier has as soon as the store has it.
        offset = lambda: {Partition(0): Offset(self.member_offset + 1)}  # noqa: E731
        store = MemberStore(2, DIMENSION, indexed=offset, feed_problem=self.feed_problem)
        store.begin({Partition(0): Offset(1)})
        return store

    def new_retriever(self, kept_bytes: int) -> Retriever:
        return Retriever(
            GENERATION,
            DIMENSION,
            self.cold,
            self.hot,
            ids=self.ids,
            members=self.store,
            encoder=WarmingEncoder(QueryModel),
            trending=TrendingLists(),
            feed_problem=self.feed_problem,
            kept_bytes=kept_bytes,
            combine_by=self.how,
        )

    def feed_problem(self) -> Reason | None:
        return None if self.log.is_fed() else BEHIND

    def teardown(self) -> None:
        self.keeping.close()
        self.asking.close()

    @rule(post_id=st.sampled_from(POSTS), new=st.booleans())
    def publish(self, post_id: str, new: bool) -> None:
        """A new revision, or the newest once more."""
        revision = self.log.revisions.get(post_id, 0)
        self.log.publish(post_id, revision + new or 1)

    @rule(partition=st.sampled_from(PARTITIONS), number=st.integers(1, 4))
    def feed(self, partition: Partition, number: int) -> None:
        first = self.log.fed[partition]
        records = self.log.records[partition][first : first + number]
        self.hot.apply(records)
        self.log.fed[partition] += len(records)

    @rule()
    def feed_all(self) -> None:
        for partition in PARTITIONS:
            self.feed(partition, 1000)

    @rule(partition=st.sampled_from(PARTITIONS), number=st.integers(1, 6), told=st.booleans())
    def index(self, partition: Partition, number: int, told: bool) -> None:
        """The cold tier writes further records, and perhaps does not say so yet."""
        first = self.log.indexed[partition]
        records = self.log.records[partition][first : first + number]
        self.cold.write("post", [IndexRecord(*record[:3]) for record in records])
        self.log.indexed[partition] += len(records)
        if told:
            self.cold.reached({partition: Offset(self.log.indexed[partition])})

    @rule()
    def index_all(self) -> None:
        for partition in PARTITIONS:
            self.index(partition, 1000, True)

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.log.now_us += seconds * SECOND
        self.hot.expire(Micros(self.log.now_us))

    @rule(partition=st.sampled_from(PARTITIONS), share=st.floats(0, 1))
    def read_again(self, partition: Partition, share: float) -> None:
        """The feed starts at an earlier offset, or at a later one: what is between is lost to it."""
        offset = Offset(round(share * len(self.log.records[partition])))
        self.hot.begin({partition: offset})
        self.log.fed[partition] = offset

    @rule(
        member_id=st.sampled_from(MEMBERS),
        deleted=st.integers(0, 4).map(lambda number: number == 0),
        lists=st.fixed_dictionaries(dict.fromkeys(["hidden", "acted", "seen"], FEW_POSTS)),
        weights=st.sampled_from([(), (), (1, 1), (3, 1), (5, 2, 1)]),
    )
    def change_member(
        self, member_id: str, deleted: bool, lists: dict[str, list[str]], weights: tuple[int, ...]
    ) -> None:
        revision = self.members[member_id].revision + 1 if member_id in self.members else 1
        vector, *others = vectors(1 + len(weights), seed=zlib.crc32(f"{member_id}/{revision}".encode()))
        interests = [] if deleted else list(zip(others, weights, strict=True))
        member = member_embedding(member_id, revision, vector=vector, deleted=deleted, interests=interests, **lists)
        self.members[member_id] = member
        self.member_offset += 1
        record = IndexRecord(member, Partition(0), Offset(self.member_offset))
        self.cold.write("member", [record])
        self.store.apply([record])

    @rule(question=QUESTIONS, fed=LIKELY, indexed=LIKELY)
    def ask(self, question: dict[str, Any], fed: bool, indexed: bool) -> None:
        self.asked.append(question)
        self.compare(question, fed, indexed)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(1, 4), fed=LIKELY, indexed=LIKELY)
    def ask_again(self, which: int, fed: bool, indexed: bool) -> None:
        self.compare(self.asked[-min(which, len(self.asked))], fed, indexed)

    def compare(self, question: dict[str, Any], fed: bool, indexed: bool) -> None:
        self.catch_up(fed, indexed)
        asked, member = self.question_of(question)
        if asked is None:
            return
        is_whole = self.log.is_fed() and covers(self.hot.floor(), self.cold.position())
        for retriever in (self.keeping, self.asking):
            answer = retriever.answer(asked)
            assert answer.partial is not is_whole, answer.reasons
            if is_whole:
                self.is_best(answer, asked, member)

    def catch_up(self, fed: bool, indexed: bool) -> None:
        """As far as a whole answer needs it."""
        if fed:
            self.feed_all()
        if indexed:
            for partition, offset in self.hot.floor().items():
                self.index(partition, max(offset - self.log.indexed[partition], 0), True)

    def question_of(self, question: dict[str, Any]) -> tuple[Question | None, MemberEmbedding | None]:
        """None for a member without a vector: the answer is then what is trending."""
        common = {**question, "timeout_s": LONG_S, "columns": frozenset({"revision"})}
        who = common.pop("who")
        if isinstance(who, int):
            return Question(vector_D=vectors(1, seed=who)[0], **common), None
        member = self.members.get(who)
        if member is None or not member.vector:
            return None, member
        return Question(member_id=MemberId(who), **common), member

    def is_best(self, answer: Answer, question: Question, member: MemberEmbedding | None) -> None:
        filters, vector_D = question.filters, question.vector_D
        if member is not None:
            vector_D = unpack_vector(member.vector)
            acted = member.acted if question.hide_acted else ()
            seen = member.seen if question.hide_seen else ()
            hidden = {*member.hidden, *acted, *seen}
            own = () if question.own_posts else {member.member_id}
            filters = filters._replace(
                exclude_posts=filters.exclude_posts | hidden, exclude_authors=filters.exclude_authors.union(own)
            )
        assert vector_D is not None
        interests = [] if member is None else unpack_interests(member.interests)
        if interests:
            best = self.log.best_of_interests(vector_D, interests, question.k, filters, self.how)
        else:
            best = self.log.best(vector_D, question.k, filters)
        assert answer.post_ids == [post_id for post_id, _, _ in best]
        assert answer.revisions == [revision for _, _, revision in best]
        np.testing.assert_allclose(answer.scores_C, [score for _, score, _ in best], atol=1e-6)

    @invariant()
    def numbers_are_given_back(self) -> None:
        for retriever in (self.keeping, self.asking):
            retriever._maker.release_dropped()


@pytest.fixture(autouse=True)
def _small_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they are used up often."""
    monkeypatch.setattr(nearest_search, "COLD_MARGIN", 1)
    monkeypatch.setattr(nearest_search, "HOT_MARGIN", 0)
    monkeypatch.setattr(combine, "SPARE", 0)


class RetrieverOverTheRealHotTier(RetrieverOverALog):
    how: How = "best"

    def new_hot_tier(self, ids: IdTable) -> HotTier:
        return MatrixHotTier(DIMENSION, HotSettings(window_s=WINDOW_S, capacity=CAPACITY, device="cpu"), ids)


class TestPlainHotTier(RetrieverOverALog.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class TestRealHotTier(RetrieverOverTheRealHotTier.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
