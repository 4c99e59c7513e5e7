"""All arms of the ablations in tiny sizes, so that the benchmark runs whenever somebody wants its figures."""

import json
from pathlib import Path

import numpy as np
import pytest

import contexts.posts
from benchmarks.ablations import ORACLE, POPULARITY, Results, Size, figures, run
from benchmarks.kit.ablations.arms import PARTS, Scale
from benchmarks.kit.ablations.interests import CHANCE, CLEARLY, ONE, SEVERAL
from benchmarks.kit.ablations.task import _is_profile_only
from contexts.actions import is_positive
from nearline.demo.made_feed.shape import FeedSize
from tests.kit.data.contexts import history_entry, member_context
from tests.kit.torch_threads import torch_threads

TINY = Size(
    FeedSize(posts=500, members=250, activity=12_000, days=6.0),
    tokens=6_000,
    seeds=1,
    scale=Scale(32, 1, 600, post_tokens=24, member_tokens=256, history=8, batch_tokens=2_000, era=200),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    with torch_threads(1):
        folder = tmp_path_factory.mktemp("ablations")
        results = run(TINY, [*PARTS], folder, folder / "arms.json")
    written = json.loads((folder / "arms.json").read_text())
    assert written.keys() == results.arms.keys()
    of_models = {
        name for name, fields in written.items() if {"correlation", "raw_correlation", "member_tokens"} <= fields.keys()
    }
    assert of_models == results.arms.keys() - {ORACLE, POPULARITY}, "the others are not measured"
    return results


def test_every_arm_is_trained_on_the_same_tokens_and_measured(measured: Results) -> None:
    task, arms = measured.task, measured.arms
    assert len(task.members) > 10
    trained = [arms[arm.name] for part in PARTS.values() for arm in part] + [arms["base"]]
    assert len(trained) == 9
    for values in trained:
        assert values.recall_10.shape == (len(task.members),)
        assert 0 < values.trained_tokens <= 2 * TINY.tokens
    assert contexts.posts.is_positive is is_positive, "what an arm changes is only changed for it"


def test_arms_differ_in_what_they_say_they_do(measured: Results) -> None:
    arms = measured.arms
    assert arms["base"].member_tokens < arms["all impressions"].member_tokens
    assert len({float(arms[name].oracle_share.sum()) for name in ("base", "raw numbers", "no numbers")}) == 3


def test_nobody_does_better_than_the_oracle(measured: Results) -> None:
    arms = measured.arms
    assert np.allclose(arms[ORACLE].oracle_share, 1)
    assert all((values.oracle_share < 1 + 1e-6).all() for values in arms.values())


def test_members_are_not_asked_for_what_they_know(measured: Results) -> None:
    task = measured.task
    for row, targets in enumerate(task.targets):
        assert targets
        assert not task.left_out_MC[row, targets].any()
        own = [index for index, post in enumerate(task.candidates) if post.author_id == task.members[row]]
        assert task.left_out_MC[row, own].all()
    assert all(post.created_at_us < task.cut_us for post in task.candidates)
    assert any(post.counts.get("impression") for post in task.candidates)


def test_only_members_without_any_history_are_known_by_their_profile_alone(
    measured: Results,
) -> None:
    wrote = history_entry("bread", "wrote")
    contexts = [member_context(headline="baker"), member_context(wrote, headline="baker"), member_context()]
    assert [_is_profile_only(context) for context in contexts] == [True, False, False]
    task = measured.task
    assert task.profile_only_M.any()
    assert task.of_length("0")[task.profile_only_M].all()


def test_members_are_asked_for_with_one_vector_and_with_one_for_each_interest_beside_it(measured: Results) -> None:
    task, answers = measured.task, measured.answers
    assert answers.keys() == {ONE, SEVERAL, CHANCE}
    vectors_M = answers[SEVERAL].vectors
    assert (answers[ONE].vectors == 1).all()
    assert 2 < vectors_M.max() <= 1 + 5
    assert not (vectors_M == 2).any(), "beside the one vector there are several"
    alone_M = vectors_M == 1
    for one, several in zip(answers[ONE][:4], answers[SEVERAL][:4], strict=True):
        assert one.shape == (len(task.members),)
        assert (one[alone_M] == several[alone_M]).all(), "who has one interest has the same answer"


def test_what_a_member_cares_for_can_be_answered(measured: Results) -> None:
    task, truth = measured.task, measured.interests
    assert truth is not None
    assert not (truth.of_interest_MIC & task.left_out_MC[:, None, :]).any()
    assert not truth.of_interest_MIC.all(1).any(), "no post is about both"
    assert (truth.of_interest_MIC[truth.has_two_M].sum(2) >= CLEARLY).all()
    assert (truth.has_two_M | ~truth.acted_on_both_M).all()
    lengths = np.array(task.lengths)
    assert (lengths[truth.acted_on_both_M] >= 4).all(), "two posts of each"


def test_interests_that_nobody_asked_for_are_not_looked_for(tmp_path: Path) -> None:
    with torch_threads(1):
        results = run(TINY, ["oracle"], tmp_path)
    assert (results.interests, results.answers) == (None, {})
    assert figures(results, ["oracle"])


def test_the_table_has_every_part(measured: Results) -> None:
    names = [figure.name for figure in figures(measured, [*PARTS])]
    assert len(set(names)) == len(names) > 20
    for words in (
        "profile alone",
        "as counted",
        "raw numbers",
        "no numbers",
        "cross-entropy",
        "0 hard",
        "1 hard",
        "all impressions",
        "last pooling",
        "several vectors ÷ one",
    ):
        assert any(words in name for name in names)
