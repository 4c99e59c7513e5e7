"""The checks that ask for answers: overlap, recall of both tiers, and search p99. Two generations answer over plain
tiers in this process, without a network between."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from indexer.brute_force import BruteColdTier
from indexer.id_table import IdTable
from nearline.client.answer import Answer, Reason
from nearline.client.question import Question
from nearline.errors import NotReady
from nearline.gate import tiers
from nearline.gate.names import ANSWER_RECALL, TIER_RECALL
from nearline.gate.overlap import overlap
from nearline.gate.tiers import Asking, answer_search, cold_search, recall_figure, search_p99
from nearline.gate.vectors import member_vectors, sampled, stacked
from nearline.gate.versions import TopicVersions, embedding_head
from retriever.answer import question as inner
from schemas import topics
from schemas.embeddings import Embedding, Vector, encode_embedding
from schemas.ids import Generation, MemberId
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import DIMENSION, GENERATION, index_records, member_embedding, post_embedding, vectors
from tests.kit.kafka.topics import Sender
from tests.kit.retrievers import LONG_S, RetrieverSetup

SERVING, BESIDE = Generation("serving-1"), Generation("beside-1")
NUM = 60
MEMBERS = [f"m{number}" for number in range(20)]
POSTS = [post_embedding(f"p{number}") for number in range(NUM)]
QUERIES = vectors(20, seed=5)


class Answers:
    """Two generations that a check asks, with a clock by which a search takes as long as the test says."""

    def __init__(self) -> None:
        ids = IdTable()
        self.setups = {each: RetrieverSetup(generation=each, ids=ids) for each in (SERVING, BESIDE)}
        self.took_s = {SERVING: 0.010, BESIDE: 0.010}
        self.now_s = 0.0
        for setup in self.setups.values():
            setup.in_hot(*POSTS[::2])
            setup.in_cold(*POSTS[1::2])
            members = zip(MEMBERS, QUERIES, strict=True)
            setup.in_member_feed(*(member_embedding(member, vector=vector) for member, vector in members))

    def ask(self, question: Question) -> Answer:
        generation = Generation(question.generation or "")
        vector_D = None if question.vector is None else np.asarray(list(question.vector), np.float32)
        member_id = None if question.member_id is None else MemberId(question.member_id)
        own = inner.Question(member_id=member_id, vector_D=vector_D, k=question.k or 0, timeout_s=LONG_S)
        answer = self.setups[generation].under_test.answer(own)
        self.now_s += self.took_s[generation]
        reasons = tuple(Reason(str(reason.code), reason.detail) for reason in answer.reasons)
        ids, scores = tuple(map(str, answer.post_ids)), tuple(answer.scores_C.tolist())
        return Answer(generation, answer.partial, reasons, ids, scores, (), {})

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    for setup in answers.setups.values():
        setup.close()


def test_equal_generations_overlap_whole_and_it_is_said_that_there_are_few_posts(answers: Answers) -> None:
    figure = overlap(answers.ask, BESIDE, SERVING, MEMBERS, None)
    assert (figure.figure, figure.bound, figure.holds) == (1.0, None, True)
    assert "there are fewer than 2000 posts" in figure.note


def test_the_overlap_is_shown_and_bounded_only_if_asked_for(answers: Answers) -> None:
    answers.setups[BESIDE].in_both(*(post_embedding(f"p{number}", 9, deleted=True) for number in range(NUM // 2)))
    shown = overlap(answers.ask, BESIDE, SERVING, [*MEMBERS, "nobody"], None)
    assert (shown.figure, shown.bound, shown.holds) == (0.5, None, True)
    assert overlap(answers.ask, BESIDE, SERVING, MEMBERS, 0.5).holds
    refused = overlap(answers.ask, BESIDE, SERVING, MEMBERS, 0.6)
    assert not refused.holds
    assert "generations.min_overlap" in refused.note


def test_without_members_there_is_no_overlap(answers: Answers) -> None:
    figure = overlap(answers.ask, BESIDE, SERVING, ["nobody"], None)
    assert not figure.holds
    assert figure.note.startswith("not measured: no sampled member has a vector")


def test_answers_that_are_never_whole_are_no_measurement(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearline.gate.asking._PAUSE_S", 0.0)
    answers.setups[BESIDE].cold.fails = True
    with pytest.raises(NotReady, match="the answers of beside-1 are not whole: cold_unavailable"):
        overlap(answers.ask, BESIDE, SERVING, MEMBERS, None)


def test_a_slow_tier_fails_and_one_that_is_nearly_as_quick_holds(answers: Answers) -> None:
    beside, serving = Asking(BESIDE, QUERIES), Asking(SERVING, QUERIES)
    answers.took_s[BESIDE] = 0.014
    quick = search_p99(answers.ask, beside, serving, answers.clock)
    assert quick.holds
    assert quick.figure == pytest.approx(1.4)
    answers.took_s[BESIDE] = 0.016
    slow = search_p99(answers.ask, beside, serving, answers.clock)
    assert (slow.holds, slow.bound) == (False, 1.5)
    assert "16.0 ms, the serving one's 10.0 ms" in slow.note
    assert not search_p99(answers.ask, Asking(BESIDE, np.zeros((0, 0), np.float32)), serving, answers.clock).holds


class Log:
    """The topics of GENERATION, with the posts and the members of these tests."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self._sender = Sender(kafka)
        self.posts = TopicVersions(kafka, topics.post_embeddings(GENERATION), embedding_head)
        self.members = TopicVersions(kafka, topics.member_embeddings(GENERATION), embedding_head)
        self.send(self.posts.topic, *POSTS)
        members = zip(MEMBERS, QUERIES, strict=True)
        self.send(self.members.topic, *(member_embedding(member, vector=vector) for member, vector in members))
        self.send(self.members.topic, member_embedding("empty", empty=True), member_embedding("gone", deleted=True))

    def send(self, topic: str, *embeddings: Embedding) -> None:
        self._sender.send(topic, [(one.entity_id, encode_embedding(one)) for one in embeddings])


@pytest.fixture
def log(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> Log:
    # Fewer than there are posts, so that a search may miss some. The posts are read in blocks.
    monkeypatch.setattr(tiers, "K", 20)
    monkeypatch.setattr("nearline.gate.vectors._BLOCK", 7)
    return Log(kafka)


def _cold(*embeddings: Embedding) -> BruteColdTier:
    cold = BruteColdTier(DIMENSION)
    cold.write("post", index_records(*embeddings))
    return cold


@pytest.mark.broker
def test_whole_tiers_find_what_a_search_of_all_vectors_finds(log: Log, answers: Answers) -> None:
    queries_QD = _queries(log)
    assert len(queries_QD) == len(MEMBERS), "of those that have a vector"
    cold = recall_figure(log.kafka, log.posts, queries_QD, TIER_RECALL, cold_search(_cold(*POSTS)))
    assert (cold.name, cold.figure, cold.bound, cold.holds) == (TIER_RECALL, 1.0, 0.995, True)
    both = recall_figure(log.kafka, log.posts, queries_QD, ANSWER_RECALL, answer_search(answers.ask, BESIDE))
    assert (both.name, both.figure, both.holds) == (ANSWER_RECALL, 1.0, True)


@pytest.mark.broker
def test_a_tier_that_misses_a_few_posts_fails(log: Log) -> None:
    figure = recall_figure(log.kafka, log.posts, _queries(log), TIER_RECALL, cold_search(_cold(*POSTS[2:])))
    assert not figure.holds
    assert figure.figure is not None
    assert 0.9 < figure.figure < 0.995
    assert "posts are missed" in figure.note


@pytest.mark.broker
def test_posts_that_change_meanwhile_do_not_count(log: Log) -> None:
    cold = _cold(*POSTS)
    queries_QD = _queries(log)

    def search(query_D: Vector) -> Sequence[str]:
        """All posts but those that stay become new ones near the query, and one is gone."""
        changed = [post_embedding(f"p{number}", 2, vector=query_D) for number in range(5)]
        log.send(log.posts.topic, *changed, post_embedding("p6", 2, deleted=True))
        cold.write("post", index_records(*changed, post_embedding("p6", 2, deleted=True)))
        return cold.search(query_D, 20).post_ids

    figure = recall_figure(log.kafka, log.posts, queries_QD[:1], TIER_RECALL, search)
    assert (figure.figure, figure.holds) == (1.0, True)
    assert "6 posts changed meanwhile" in figure.note


@pytest.mark.broker
def test_where_there_is_nothing_to_ask_with_it_does_not_hold(kafka: KafkaSettings) -> None:
    posts = TopicVersions(kafka, topics.post_embeddings(GENERATION), embedding_head)
    nobody = recall_figure(kafka, posts, np.zeros((0, 0), np.float32), TIER_RECALL, cold_search(_cold()))
    assert nobody.note.startswith("not measured: no member has a vector")
    nothing = recall_figure(kafka, posts, QUERIES, TIER_RECALL, cold_search(_cold()))
    assert (nothing.holds, nothing.figure) == (False, None)


def _queries(log: Log) -> Vector:
    log.members.read_on()
    ids = sampled(log.members, 100)
    assert set(ids) == {*MEMBERS, "empty"}
    return stacked(member_vectors(log.kafka, log.members, ids), 100)
