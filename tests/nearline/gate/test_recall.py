"""The check of what packages find, with real tiny packages: words in common are enough to find posts of a subject."""

from datetime import timedelta
from pathlib import Path

import pytest

from encoders.package.model_package import ModelPackage
from nearline.gate.names import RECALL
from nearline.gate.recall import recall_figures
from schemas.generations import GateFigure
from schemas.times import to_micros, to_rfc3339
from tests.kit.data.training_events import START, events, feed_of
from tests.kit.packages import make_tiny_package
from tests.kit.torch_threads import torch_threads
from trainer.data.feed import Feed

TRAINED_UNTIL = to_rfc3339(to_micros(START + timedelta(hours=40)))


@pytest.fixture(scope="module")
def feed() -> Feed:
    return feed_of(events())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("models") / "good"
    return make_tiny_package(folder, hidden=64, layers=1, training={"until": TRAINED_UNTIL})


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Two numbers of a vector say hardly anything."""
    folder = tmp_path_factory.mktemp("models") / "bad"
    return make_tiny_package(folder, hidden=64, layers=1, dimension=2)


def _figures(feed: Feed, package: ModelPackage, serving: ModelPackage) -> list[GateFigure]:
    with torch_threads(1):
        figures = list(recall_figures(feed, package, serving, "cpu"))
    assert tuple(figure.name for figure in figures) == RECALL
    return figures


def test_a_worse_package_fails_and_a_better_one_holds(feed: Feed, good: ModelPackage, bad: ModelPackage) -> None:
    at_100, at_2000 = _figures(feed, bad, good)
    assert not at_100.holds
    assert at_100.figure == 1.0
    assert "it finds less beyond chance" in at_100.note
    assert f"since {TRAINED_UNTIL}" in at_100.note, "newer than the training of both"
    assert "bad-" in at_100.note or "tiny-" in at_100.note
    assert at_2000.holds
    assert "every package finds all of them" in at_2000.note
    better, _ = _figures(feed, good, bad)
    assert (better.holds, better.figure) == (True, 0.0)


def test_an_equal_package_is_not_worse(feed: Feed, good: ModelPackage) -> None:
    assert [figure.holds for figure in _figures(feed, good, good)] == [True, True]


def test_too_few_actions_are_said_and_do_not_hold(good: ModelPackage, tmp_path: Path) -> None:
    few, _ = _figures(feed_of(events(num_posts=60)), good, good)
    assert (few.holds, few.figure) == (False, None)
    assert few.note.startswith("not measured: there are ")
    assert "--force --reason TEXT" in few.note
    newest = to_rfc3339(to_micros(START + timedelta(hours=395)))
    newer = make_tiny_package(tmp_path / "newer", hidden=16, layers=1, training={"until": newest})
    late, _ = _figures(feed_of(events()), good, newer)
    assert f"after {newest}, when both were trained" in late.note
