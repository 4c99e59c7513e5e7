from pathlib import Path

import pytest

from encoders.packages import ModelPackage
from tests.packages import make_tiny_package
from tests.trainer.kit import events, feed_of
from trainer.errors import NotBetter
from trainer.evaluation import Evaluation, Measured
from trainer.feed import Feed, task_at
from trainer.gate import compare


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events())


@pytest.fixture(scope="module")
def evaluation(feed: Feed) -> Evaluation:
    return Evaluation(feed, task_at(feed, feed.cut(0.15)))


def recall(measured: Measured, k: str = "10", group: str = "protocol") -> float:
    return measured.result.groups[group].recall[k]


def test_words_in_common_beat_popularity_and_chance(evaluation: Evaluation) -> None:
    found = {(one.result.system, one.result.history): one for one in evaluation.baselines()}
    for name in ("tf-idf", "tf-idf titles", "bm25"):
        assert recall(found[name, "acted"]) > 0.45, name
    assert recall(found["random", "acted"]) < 0.3
    assert recall(found["popularity", "acted"]) < 0.3
    assert recall(found["random", "acted"], "2000") == 1.0


def test_a_package_is_measured_at_every_dimension_and_with_both_histories(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    package = make_tiny_package(tmp_path / "tiny", hidden=64, dimension=32)
    found = {(one.result.history, one.result.dimension): one.result for one in evaluation.package(package)}
    assert set(found) == {("acted", 64), ("acted", 32), ("wrote", 32)}
    assert [key for key, one in found.items() if one.is_main] == [("acted", 32), ("wrote", 32)]
    narrow = make_tiny_package(tmp_path / "narrow", hidden=64, dimension=64)
    (same,) = [one.result for one in evaluation.package(narrow) if one.result.history == "acted"]
    assert same.groups == found["acted", 64].groups


def test_groups_by_length_hold_every_member_with_a_target(evaluation: Evaluation) -> None:
    groups = next(evaluation.baselines()).result.groups
    assert sum(group.members for name, group in groups.items() if name != "protocol") == len(evaluation.task.targets)


def test_the_gate_refuses_what_is_not_better_and_says_both_figures(tmp_path: Path, feed: Feed) -> None:
    package = make_tiny_package(tmp_path / "random")
    with pytest.raises(NotBetter, match=r"Recall@100 is \d\.\d+ and that of tiny-.* better in 0% of the resamples"):
        compare(package, ModelPackage.load(package.folder), feed)


def test_the_gate_lets_a_better_one_pass_and_says_against_what(tmp_path: Path) -> None:
    feed = feed_of(events(1_500))
    verdict = compare(make_tiny_package(tmp_path / "words", layers=1), None, feed)
    assert verdict["against"] == "popularity"
    assert verdict["share_better"] >= 0.95
    assert verdict["recall"] > verdict["recall_before"]
