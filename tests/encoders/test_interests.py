import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders.encoder import Encoder
from encoders.errors import SeveralVectors, one_vector
from encoders.interests import acted_texts, asked_vectors, find_interests
from encoders.package.manifest import MeanForm, MemberForm, MemberVectorsForm, PromptForm
from schemas.contexts import MemberContext
from schemas.embeddings import Interest, Vector, pack_interests, unpack_interests
from tests.kit.data.contexts import history_entry, member_context
from tests.kit.packages import make_tiny_package
from trainer.evaluation.package_vectors import PackageVectors

FORM = MemberVectorsForm(distance=1.4, half_life_s=3600.0)
BREAD = "how to bake bread with a sourdough starter and a hot oven"
OVEN = "how to bake bread with a sourdough starter and an oven"
BUILD = "the build of the network card failed again after the patch"
PATCH = "the build of the network card failed after the last patch"


def around(axis: int, number: int, seed: int = 0, spread: float = 0.1) -> list[Vector]:
    drawn = np.random.default_rng(seed).normal(0, spread, (number, 16))
    drawn[:, axis] += 1
    return list((drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32))


def test_posts_of_two_subjects_are_two_interests_and_each_vector_is_a_posts_own() -> None:
    vectors = [*around(0, 6), *around(1, 3)]
    first, second = find_interests(FORM, vectors, [1.0] * 9)
    assert (first.weight, second.weight) == (6.0, 3.0)
    assert any(np.array_equal(first.vector_D, vector) for vector in vectors[:6])
    assert any(np.array_equal(second.vector_D, vector) for vector in vectors[6:])
    # The medoid is nearest to all others of its cluster.
    sums = [sum(float(vector @ other) for other in vectors[:6]) for vector in vectors[:6]]
    assert sum(float(first.vector_D @ other) for other in vectors[:6]) == pytest.approx(max(sums))


def test_the_order_of_the_posts_changes_nothing_but_the_order_of_equal_interests() -> None:
    vectors = [*around(0, 5), *around(1, 4), *around(2, 3)]
    shuffled = random.Random(3).sample(vectors, len(vectors))
    same = [find_interests(FORM, each, [1.0] * len(vectors)) for each in (vectors, shuffled)]
    for one, other in zip(*same, strict=True):
        assert one.weight == other.weight
        assert np.array_equal(one.vector_D, other.vector_D)


def test_rounding_does_not_choose_between_texts_that_are_as_near() -> None:
    """Each of two is as near to the other. On an AMD EPYC encoding and evaluation chose differently."""
    vectors = [*around(0, 2), *around(1, 2, seed=1)]
    rng = np.random.default_rng(2)
    for _ in range(20):
        noisy = [(vector + rng.normal(0, 1e-7, 16)).astype(np.float32) for vector in vectors]
        first, second = find_interests(FORM, noisy, [1.0] * 4)
        assert np.array_equal(first.vector_D, noisy[0]), "the newest"
        assert np.array_equal(second.vector_D, noisy[2]), "the newest"


def test_one_subject_or_a_single_post_is_no_several_interests() -> None:
    assert find_interests(FORM, around(0, 20), [1.0] * 20) == []
    assert find_interests(FORM, around(0, 1), [1.0]) == []
    assert find_interests(FORM, [], []) == []


def test_texts_without_weight_or_with_a_vector_of_zeros_are_left_out() -> None:
    vectors = [*around(0, 3), *around(1, 2), *around(2, 2), np.zeros(16, np.float32)]
    interests = find_interests(FORM, vectors, [1.0] * 5 + [0.0] * 2 + [1.0])
    assert [interest.weight for interest in interests] == [3.0, 2.0]
    assert len(unpack_interests(pack_interests(interests))) == 2, "a reader takes them"
    assert find_interests(FORM, vectors, [1.0] * 3 + [0.0] * 5) == [], "one interest is left"
    long_ago = member_context(history_entry("a", hours_ago=1), history_entry("b", hours_ago=10_000))
    assert sorted(weight for _, weight in acted_texts(FORM, long_ago)) == [0.0, 0.5]


def test_there_are_at_most_so_many() -> None:
    vectors = [vector for axis in range(9) for vector in around(axis, 2, seed=axis, spread=0.01)]
    interests = find_interests(FORM, vectors, [1.0] * len(vectors))
    assert len(interests) == 5
    assert sum(interest.weight for interest in interests) == len(vectors)
    assert all(one.weight >= other.weight for one, other in pairwise(interests))


def test_a_weight_is_the_decayed_sum_of_actions_and_own_posts_are_none() -> None:
    context = member_context(
        history_entry("a", hours_ago=2),
        history_entry("b", "wrote"),
        history_entry(" "),
        history_entry("c", hours_ago=1),
        history_entry("a", "click"),
    )
    assert acted_texts(FORM, context) == [("a", 1.25), ("c", 0.5)]
    assert acted_texts(FORM, member_context(history_entry("a"), deleted=True)) == []


def test_a_member_is_asked_with_its_one_vector_and_the_other_half_is_its_interests() -> None:
    own, *axes = np.eye(4, dtype=np.float32)
    assert asked_vectors(own, []) == [(own, 1.0)]
    asked = asked_vectors(own, [Interest(axes[0], 6.0), Interest(axes[1], 2.0)])
    assert [(each.vector_D.argmax(), each.weight) for each in asked] == [(0, 0.5), (1, 0.375), (2, 0.125)]


@pytest.fixture(scope="module", params=[MeanForm(), PromptForm()], ids=["mean", "prompt"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    form: MemberForm = request.param
    several = MemberVectorsForm(distance=1.0)
    folder = tmp_path_factory.mktemp("packages") / "tiny"
    return Encoder.load(make_tiny_package(folder, layers=1, member_form=form, member_vectors=several).folder)


def several_vectors(encoder: Encoder, context: MemberContext) -> SeveralVectors:
    (outcome,) = encoder.encode_members([context])
    assert isinstance(outcome, SeveralVectors)
    return outcome


def test_a_member_has_its_one_vector_and_one_of_each_interest(encoder: Encoder, tmp_path: Path) -> None:
    context = member_context(*map(history_entry, (BREAD, OVEN, BUILD, PATCH)), headline="baker")
    outcome = several_vectors(encoder, context)
    texts = {text: encoder.encode_texts([text])[0] for text in (BREAD, OVEN, BUILD, PATCH)}
    of_interest = [
        next(text for text, vector in texts.items() if np.allclose(vector, interest.vector_D, atol=1e-6))
        for interest in outcome.interests
    ]
    assert len(set(of_interest) & {BREAD, OVEN}) == len(set(of_interest) & {BUILD, PATCH}) == 1
    plain = make_tiny_package(tmp_path / "plain", layers=1, member_form=encoder.package.member_form)
    (alone,) = Encoder.load(plain.folder).encode_members([context])
    assert outcome.vector_D == pytest.approx(one_vector(alone), abs=1e-6), "the one vector is as without interests"


def test_a_deleted_post_leaves_the_vectors_with_the_next_context(encoder: Encoder) -> None:
    """The context stage takes it out of the history."""
    whole = member_context(*map(history_entry, (BREAD, OVEN, BUILD)))
    (build,) = encoder.encode_texts([BUILD])
    interests = several_vectors(encoder, whole).interests
    assert any(np.allclose(interest.vector_D, build, atol=1e-6) for interest in interests)
    (outcome,) = encoder.encode_members([member_context(*map(history_entry, (BREAD, OVEN)), revision=2)])
    assert isinstance(outcome, np.ndarray), "one interest is left"


def test_a_text_that_cannot_be_encoded_is_part_of_no_interest(encoder: Encoder) -> None:
    context = member_context(*map(history_entry, (BREAD, OVEN, BUILD, "half \ud800")))
    (outcome,) = encoder.encode_members([context])
    assert not isinstance(outcome, SeveralVectors) or len(outcome.interests) == 2


def test_evaluation_makes_the_same_interests(encoder: Encoder) -> None:
    contexts = [
        member_context(*map(history_entry, (BREAD, OVEN, BUILD, PATCH)), headline="baker"),
        member_context(history_entry(BREAD)),
        member_context(headline="baker"),
        member_context(),
    ]
    vectors = PackageVectors(encoder.package, device="cpu").members(contexts)
    outcomes = encoder.encode_members(contexts)
    for outcome, interests in zip(outcomes, vectors.interests(encoder.package.dimension), strict=True):
        expected = outcome.interests if isinstance(outcome, SeveralVectors) else []
        assert [each.weight for each in interests] == [each.weight for each in expected]
        for ours, served in zip(interests, expected, strict=True):
            assert ours.vector_D == pytest.approx(served.vector_D, abs=1e-6)
