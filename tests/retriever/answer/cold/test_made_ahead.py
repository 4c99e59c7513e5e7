"""Who asked lately and has changed finds a cold answer that was made meanwhile."""

from collections.abc import Iterator

import pytest

from retriever.answer.cold.made_ahead import MadeAhead
from retriever.answer.question import Question
from schemas.ids import MemberId
from tests.kit.data.embeddings import member_embedding
from tests.kit.retrievers import QUERY, RetrieverSetup, asking_member, codes_of, scored_post
from tests.kit.waiting import until


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), *(scored_post(f"p{number:03}", number / 1000) for number in range(300)))
    yield retriever
    retriever.close()


def test_the_next_question_needs_no_cold_tier(retriever: RetrieverSetup) -> None:
    asked = {"member_id": "m", "k": 2, "hide_acted": True, "languages": ["en"]}
    retriever.ask(**asked)
    retriever.in_member_feed(asking_member("m", revision=2, hidden=["p299"], acted=["p298"]))
    kept = retriever.under_test.kept
    until(lambda: {entry.version.revision for entry in kept._kept.values()} == {2}, "the answer to be made")
    retriever.cold.fails = True
    answer = retriever.ask(**asked)
    assert (answer.post_ids, answer.partial) == (["p297", "p296"], False)
    assert codes_of(retriever.ask(**asked | {"own_posts": True})) == ["cold_unavailable"], "another question"


def test_of_a_member_with_interests_each_vector_finds_its_answer_made(retriever: RetrieverSetup) -> None:
    interests = [(QUERY, 1.0), (-QUERY, 1.0)]
    retriever.in_member_feed(member_embedding("m", vector=QUERY, interests=interests))
    first = retriever.ask(member_id="m", k=4)
    retriever.in_member_feed(member_embedding("m", 2, vector=QUERY, interests=interests))
    kept = retriever.under_test.kept
    until(lambda: [entry.version.revision for entry in kept._kept.values()] == [2] * 3, "all answers to be made")
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m", k=4)
    assert (answer.post_ids, answer.partial) == (first.post_ids, False)


def test_who_was_encoded_again_is_answered_by_the_new_vector(retriever: RetrieverSetup) -> None:
    """The context was the same, and so is its revision."""
    assert retriever.ask(member_id="m", k=2).post_ids == ["p299", "p298"]
    retriever.in_member_feed(member_embedding("m", vector=-QUERY))
    kept = retriever.under_test.kept
    assert retriever.ask(member_id="m", k=2).post_ids == ["p000", "p001"]
    until(lambda: len(kept) == 1, "one answer of the member to be left")
    retriever.cold.fails = True
    assert retriever.ask(member_id="m", k=2).post_ids == ["p000", "p001"]


def test_a_post_that_was_encoded_again_counts_with_its_new_vector(retriever: RetrieverSetup) -> None:
    """Also where the cold answer was kept from before."""
    assert retriever.ask(member_id="m", k=2).post_ids == ["p299", "p298"]
    retriever.in_hot(scored_post("p299", 0.001), scored_post("p007", 0.9))
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m", k=2)
    assert (answer.post_ids, answer.partial) == (["p007", "p298"], False)


def test_nothing_is_made_for_who_did_not_ask_or_is_gone(retriever: RetrieverSetup) -> None:
    retriever.in_member_feed(asking_member("other"), asking_member("other", revision=2))
    retriever.ask(member_id="m", k=2)
    retriever.in_member_feed(asking_member("m", revision=2, empty=True))
    retriever.in_member_feed(asking_member("m", revision=3, deleted=True))
    retriever.in_member_feed(asking_member("m", revision=4))
    assert not retriever.under_test._cold_searches._ahead
    assert [entry.version.revision for entry in retriever.under_test.kept._kept.values()] == [1]


def test_what_is_made_is_as_long_as_the_longest_answer_that_was_asked_for(retriever: RetrieverSetup) -> None:
    for k in (2, 250, 5):
        retriever.ask(member_id="m", k=k)
    retriever.in_member_feed(asking_member("m", revision=2))
    kept = retriever.under_test.kept
    until(lambda: {entry.version.revision for entry in kept._kept.values()} == {2}, "the answer to be made")
    retriever.cold.fails = True
    assert len(retriever.ask(member_id="m", k=250).post_ids) == 250


def test_the_memory_of_questions_is_bounded(retriever: RetrieverSetup) -> None:
    ahead = MadeAhead(retriever.under_test._cold_searches, max_remembered=2)
    for name in ("a", "b", "a", "c"):
        ahead.remember(Question(member_id=MemberId(name)))
    long_filters = Question().filters._replace(exclude_posts=frozenset(str(number) for number in range(101)))
    ahead.remember(Question(member_id=MemberId("d"), filters=long_filters))
    ahead.remember(Question(text="a text"))
    assert list(ahead._asked) == ["a", "c"]
