"""All arms of the ablations in tiny sizes, so that the benchmark runs whenever somebody wants its figures."""

import json

import numpy as np
import pytest

import contexts.posts
from benchmarks.ablations import ORACLE, POPULARITY, Size, figures, run
from benchmarks.kit.ablations.arms import PARTS, Scale
from benchmarks.kit.ablations.measure import Values
from benchmarks.kit.ablations.task import LiveTask, _is_profile_only
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
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveTask, dict[str, Values]]:
    with torch_threads(1):
        folder = tmp_path_factory.mktemp("ablations")
        task, arms = run(TINY, [*PARTS], folder, folder / "arms.json")
    written = json.loads((folder / "arms.json").read_text())
    assert written.keys() == arms.keys()
    of_models = {
        name for name, fields in written.items() if {"correlation", "raw_correlation", "member_tokens"} <= fields.keys()
    }
    assert of_models == arms.keys() - {ORACLE, POPULARITY}, "the others are not measured"
    return task, arms


def test_every_arm_is_trained_on_the_same_tokens_and_measured(measured: tuple[LiveTask, dict[str, Values]]) -> None:
    task, arms = measured
    assert len(task.members) > 10
    trained = [arms[arm.name] for part in PARTS.values() for arm in part] + [arms["base"]]
    assert len(trained) == 9
    for values in trained:
        assert values.recall_10.shape == (len(task.members),)
        assert 0 < values.trained_tokens <= 2 * TINY.tokens
    assert contexts.posts.is_positive is is_positive, "what an arm changes is only changed for it"


def test_arms_differ_in_what_they_say_they_do(measured: tuple[LiveTask, dict[str, Values]]) -> None:
    _, arms = measured
    assert arms["base"].member_tokens < arms["all impressions"].member_tokens
    assert len({float(arms[name].oracle_share.sum()) for name in ("base", "raw numbers", "no numbers")}) == 3


def test_nobody_does_better_than_the_oracle(measured: tuple[LiveTask, dict[str, Values]]) -> None:
    _, arms = measured
    assert np.allclose(arms[ORACLE].oracle_share, 1)
    assert all((values.oracle_share < 1 + 1e-6).all() for values in arms.values())


def test_members_are_not_asked_for_what_they_know(measured: tuple[LiveTask, dict[str, Values]]) -> None:
    task, _ = measured
    for row, targets in enumerate(task.targets):
        assert targets
        assert not task.left_out_MC[row, targets].any()
        own = [index for index, post in enumerate(task.candidates) if post.author_id == task.members[row]]
        assert task.left_out_MC[row, own].all()
    assert all(post.created_at_us < task.cut_us for post in task.candidates)
    assert any(post.counts.get("impression") for post in task.candidates)


def test_only_members_without_any_history_are_known_by_their_profile_alone(
    measured: tuple[LiveTask, dict[str, Values]],
) -> None:
    wrote = history_entry("bread", "wrote")
    contexts = [member_context(headline="baker"), member_context(wrote, headline="baker"), member_context()]
    assert [_is_profile_only(context) for context in contexts] == [True, False, False]
    task, _ = measured
    assert task.profile_only_M.any()
    assert task.of_length("0")[task.profile_only_M].all()


def test_the_table_has_every_part(measured: tuple[LiveTask, dict[str, Values]]) -> None:
    names = [figure.name for figure in figures(*measured, [*PARTS])]
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
    ):
        assert any(words in name for name in names)
