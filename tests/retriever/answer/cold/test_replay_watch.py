"""What was kept of the cold tier's answers goes when records were written to it again."""

import pytest

from retriever.answer.cold.replay_watch import ReplayWatch
from tests.kit.data.embeddings import member_embedding
from tests.kit.retrievers import QUERY, RetrieverSetup, asking_member, scored_post


def test_answers_are_outdated_after_each_change_and_once_more() -> None:
    said = iter([None, None, 0, 0, 3, 5, 5, 5])
    watch = ReplayWatch(lambda: next(said))
    assert [watch.has_outdated_answers() for _ in range(8)] == [False, False, False, False, True, True, True, False]


def test_a_cold_tier_that_was_mended_is_asked_again() -> None:
    replayed = 0
    retriever = RetrieverSetup(warm=False, replayed=lambda: replayed)
    retriever.in_cold(scored_post("p1", 0.9), scored_post("p2", 0.1), member_embedding("m", vector=-QUERY))
    assert retriever.ask(member_id="m", k=2).post_ids == ["p2", "p1"]
    retriever.in_cold(scored_post("p1", 0.2), scored_post("p2", 0.8), asking_member("m"), again=True)
    retriever.under_test.tidy()
    assert retriever.ask(member_id="m", k=2).post_ids == ["p2", "p1"], "nobody knows yet"
    replayed = 1
    retriever.under_test.tidy()
    answer = retriever.ask(member_id="m", k=2, columns=frozenset())
    assert answer.post_ids == ["p2", "p1"]
    assert answer.scores_C.tolist() == pytest.approx([0.8, 0.2], abs=1e-5)
    retriever.close()
