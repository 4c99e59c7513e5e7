"""Members with several interests: what both tiers are asked, and whose posts the answer has."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pytest

from encoders.package.manifest import MemberVectorsForm
from retriever.answer.combine import PartList, combine, list_length
from retriever.answer.merge import Merged
from schemas.embeddings import MemberEmbedding, PostEmbedding, Vector
from tests.kit.data.embeddings import DIMENSION, NOW, member_embedding, post_embedding
from tests.kit.retrievers import RetrieverSetup, codes_of
from trainer.evaluation.package_vectors import MemberVectors

NUM_POSTS = 60
"""Of each subject."""


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    setup = RetrieverSetup(real_hot_tier=True)
    yield setup
    setup.close()


def axis(number: int) -> Vector:
    return np.eye(DIMENSION, dtype=np.float32)[number]


def near(number: int, distance: float, by: int = 15) -> Vector:
    """Near this axis, the less so the larger the distance."""
    vector = axis(number) + np.float32(distance) * axis(by)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def post_of(subject: int, number: int, **fields: object) -> PostEmbedding:
    """Subject 1 lies further from its members than subject 0."""
    name = f"s{subject}-{number:02d}"
    vector = near(subject, 0.2 * subject + 0.01 * number)
    return post_embedding(name, vector=vector, author="author", created_at_us=NOW, **fields)  # type: ignore[arg-type]


def posts() -> list[PostEmbedding]:
    """Between the subjects there are more than both have, and a mean of the two subjects is nearest to these."""
    between = np.asarray((axis(0) + axis(1)) / np.sqrt(2), np.float32)
    others = [
        post_embedding(f"b-{number:02d}", vector=_turned(between, 0.01 * number), author="author", created_at_us=NOW)
        for number in range(NUM_POSTS)
    ]
    return [*others, *(post_of(subject, number) for subject in (0, 1) for number in range(NUM_POSTS))]


def _turned(vector: Vector, distance: float) -> Vector:
    turned = vector + np.float32(distance) * axis(14)
    return np.asarray(turned / np.linalg.norm(turned), np.float32)


def with_two_interests(
    member_id: str = "m", weights: Sequence[float] = (1, 1), revision: int = 1, **lists: object
) -> MemberEmbedding:
    mean = np.asarray((axis(0) + axis(1)) / np.sqrt(2), np.float32)
    interests = [] if not weights else [(axis(0), weights[0]), (axis(1), weights[1])]
    return member_embedding(member_id, revision, vector=mean, interests=interests, **lists)  # type: ignore[arg-type]


def num_between(post_ids: Sequence[str]) -> int:
    return sum(post_id.startswith("b-") for post_id in post_ids)


def num_of(subject: int, post_ids: Sequence[str]) -> int:
    return sum(post_id.startswith(f"s{subject}-") for post_id in post_ids)


def test_a_member_with_two_interests_finds_both_in_its_best_50(retriever: RetrieverSetup) -> None:
    every = posts()
    retriever.in_both(*every[::2])
    retriever.in_cold(*every[1::2])
    retriever.in_member_feed(with_two_interests("both"), with_two_interests("one-vector", weights=()))
    answer = retriever.ask(member_id="both", k=50)
    assert not answer.partial
    assert (num_of(0, answer.post_ids), num_of(1, answer.post_ids)) == (13, 12), "a quarter each"
    assert answer.scores_C.tolist() == sorted(answer.scores_C.tolist(), reverse=True)
    alone = retriever.ask(member_id="one-vector", k=50)
    assert (num_of(0, alone.post_ids), num_of(1, alone.post_ids)) == (0, 0), "the mean finds what lies between"
    assert alone.post_ids[:25] == [post_id for post_id in answer.post_ids if post_id.startswith("b-")][:25], (
        "the better half of what the one vector finds is in the answer whatever the interests are"
    )


@pytest.mark.parametrize("how", ["quota", "best"])
def test_the_evaluation_takes_the_same_posts(how: Literal["quota", "best"]) -> None:
    every = posts()
    retriever = RetrieverSetup(real_hot_tier=True, combine_by=how)
    try:
        retriever.in_both(*every)
        retriever.in_member_feed(with_two_interests())
        answer = retriever.ask(member_id="m", k=40)
    finally:
        retriever.close()
    posts_CD = np.stack([np.frombuffer(post.vector, "<f4") for post in every])
    mean = np.asarray((axis(0) + axis(1)) / np.sqrt(2), np.float32)
    acted = [(axis(0), 1.0), (axis(1), 1.0)]
    members = MemberVectors([[(mean, 1.0)]], [acted], MemberVectorsForm(distance=1.0, merge=how))
    best = np.argsort(-members.scores(posts_CD)[0], kind="stable")[:40]
    assert sorted(every[row].post_id for row in best) == sorted(answer.post_ids)


def test_the_weights_are_quotas(retriever: RetrieverSetup) -> None:
    retriever.in_both(*posts())
    retriever.in_member_feed(with_two_interests(weights=(4, 1)))
    answer = retriever.ask(member_id="m", k=50)
    assert (num_of(0, answer.post_ids), num_of(1, answer.post_ids)) == (20, 5), "of the half that is theirs"
    assert num_between(answer.post_ids) == 25


def test_best_takes_the_best_scores_whatever_the_weights() -> None:
    retriever = RetrieverSetup(real_hot_tier=True, combine_by="best")
    try:
        retriever.in_both(*posts())
        retriever.in_member_feed(with_two_interests(weights=(1, 4)))
        post_ids = retriever.ask(member_id="m", k=20).post_ids
        assert (num_of(0, post_ids), num_of(1, post_ids), num_between(post_ids)) == (10, 0, 10)
    finally:
        retriever.close()


def test_hidden_posts_and_filters_hold_for_every_vector(retriever: RetrieverSetup) -> None:
    retriever.in_both(*posts())
    hidden = [f"s{subject}-{number:02d}" for subject in (0, 1) for number in range(5)]
    retriever.in_member_feed(with_two_interests(hidden=hidden, acted=["s0-05", "s1-05"]))
    answer = retriever.ask(member_id="m", k=20, hide_acted=True, exclude_posts=["s0-06"])
    assert not {*hidden, "s0-05", "s1-05", "s0-06"} & {*answer.post_ids}
    assert (num_of(0, answer.post_ids), num_of(1, answer.post_ids)) == (5, 5)


def test_every_vector_has_a_kept_answer_and_the_cold_tier_is_asked_once(retriever: RetrieverSetup) -> None:
    retriever.in_cold(*posts())
    retriever.in_member_feed(with_two_interests())
    batches: list[int] = []
    search_batch = retriever.cold.tier.search_batch

    def counted(queries: Sequence[object], **more: object) -> object:
        batches.append(len(queries))
        return search_batch(queries, **more)

    retriever.cold.tier.search_batch = counted
    first = retriever.ask(member_id="m", k=50)
    assert batches == [3], "all at once"
    assert len(retriever.under_test.kept) == 3
    again = retriever.ask(member_id="m", k=50)
    assert (again.post_ids, batches) == (first.post_ids, [3])


def test_a_cold_tier_that_fails_makes_the_answer_partial_for_all_vectors(retriever: RetrieverSetup) -> None:
    every = posts()
    retriever.in_both(*every)
    retriever.in_member_feed(with_two_interests())
    retriever.cold.fails = True
    answer = retriever.ask(member_id="m", k=50)
    assert answer.partial
    assert codes_of(answer) == ["cold_unavailable"]
    assert (num_of(0, answer.post_ids), num_of(1, answer.post_ids)) == (13, 12)


def merged(*numbers: int) -> Merged:
    count = len(numbers)
    return Merged(
        np.array(numbers, np.int32),
        np.linspace(1, 0.5, count, dtype=np.float32),
        np.ones(count, np.int64),
        np.zeros(count, np.uint8),
        False,
        False,
    )


def ids_of(numbers: np.ndarray) -> list[str]:
    return [f"{number:03d}" for number in numbers.tolist()]


def test_a_list_that_was_cut_too_short_is_said() -> None:
    """Both lists begin with the same posts, so the quota of the second needs more of it than was asked for."""
    first, second = merged(*range(10)), merged(*range(5))
    combined = combine([PartList(first, 0.5, 10), PartList(second, 0.5, 5)], "quota", 10, ids_of)  # type: ignore[arg-type]
    assert combined.too_short == [False, True]
    whole = merged(*range(5), *range(20, 25))
    combined = combine([PartList(first, 0.5, 10), PartList(whole, 0.5, 10)], "quota", 10, ids_of)  # type: ignore[arg-type]
    assert combined.too_short == [False, False]
    assert sorted(combined.merged.numbers_K.tolist()) == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21]


def test_a_short_list_is_long_enough_for_its_share() -> None:
    assert list_length(2000, 1.0, "quota") == list_length(2000, 0.1, "best") == 2000
    assert 200 < list_length(2000, 0.1, "quota") < 400
    assert list_length(1, 0.01, "quota") == 1
