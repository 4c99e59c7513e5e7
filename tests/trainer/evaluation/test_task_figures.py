"""Recall@100 and AUC of the auxiliary tasks on held out posts."""

from pathlib import Path

import numpy as np
import pytest

from schemas.contexts import PostContext
from schemas.ids import Micros
from tests.kit.data.events import activity, post_created
from tests.kit.data.training_events import START, feed_of
from tests.kit.packages import make_tiny_package
from trainer.evaluation.package_vectors import Matrix, PackageVectors
from trainer.evaluation.task_figures import HeldOutTask, held_out_tasks, measure, measure_tasks

NUM_LABELS = 12
NUM_POSTS = 600


def _texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [f"s{label}: text {number}" for number, label in enumerate(rng.integers(NUM_LABELS, size=NUM_POSTS))]


def _task() -> HeldOutTask:
    feed = feed_of(post_created(f"p{number}", text) for number, text in enumerate(_texts()))
    (interest,) = [task for task in held_out_tasks(feed, Micros(0)) if task.name == "interest"]
    return interest


def _clustered(seed: int) -> Matrix:
    """(C, 16): posts of a label are near each other."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((NUM_LABELS, 16))
    labels = [int(text[1 : text.index(":")]) for text in _texts()]
    drawn = centers[labels] + 0.5 * rng.standard_normal((NUM_POSTS, 16))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def test_posts_of_a_label_find_each_other_and_shuffled_labels_are_chance() -> None:
    task, vectors = _task(), _clustered(1)
    figures = measure(task, vectors, vectors).figures
    assert (figures.queries, figures.candidates) == (NUM_POSTS, NUM_POSTS)
    assert figures.auc > 0.9
    assert figures.recall_100 > 0.8
    # One shuffle alone may bring posts of a few large clusters together.
    shuffled = [measure(task.with_shuffled_labels(seed), vectors, vectors).figures for seed in range(8)]
    assert np.mean([each.auc for each in shuffled]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([each.recall_100 for each in shuffled]) == pytest.approx(100 / NUM_POSTS, abs=0.02)


def test_recall_and_auc_are_those_that_one_counts_by_hand() -> None:
    posts = [PostContext(post_id, 1, 0) for post_id in "abc"]  # type: ignore[arg-type]
    alike = np.array([[False, True, False]])
    task = HeldOutTask("interest", posts, None, alike, np.array([[False, True, True]]))
    queries = np.array([[1.0, 0.0]], np.float32)
    for second, auc in ((0.5, 1.0), (0.1, 0.0), (0.2, 0.5)):
        posts_CD = np.array([[1.0, 0.0], [second, 0.0], [0.2, 0.0]], np.float32)
        measured = measure(task, queries, posts_CD)
        assert (measured.figures.auc, measured.recalls.tolist()) == (pytest.approx(auc), [1.0])


def test_a_package_is_measured_in_each_task_that_the_held_out_posts_hold_anything_for(tmp_path: Path) -> None:
    texts = ["net: fix a bug\n\nbread and an oven", "net: phy: a driver\n\nthe oven is hot", "mmc: fix\n\nan oven"]
    texts += ["I bake #bread", "more #bread"]
    feed = feed_of([
        *(post_created(f"p{number}", text, author_id="ann") for number, text in enumerate(texts)),
        activity("m1", "p0", at=START),
    ])  # fmt: skip
    tasks = held_out_tasks(feed, Micros(0))
    assert [task.name for task in tasks] == ["interest", "tag", "search"], "there is no story of two posts"
    package = make_tiny_package(tmp_path / "tiny", hidden=64, dimension=32)
    figures = {measured.figures.task: measured.figures for measured in measure_tasks(package, tasks)}
    assert (figures["interest"].queries, figures["interest"].candidates) == (2, 3)
    assert (figures["search"].queries, figures["search"].candidates) == (3, 3)
    assert all(0 <= of_task.auc <= 1 and of_task.recall_100 == 1 for of_task in figures.values())
    assert held_out_tasks(feed, Micros(2**60)) == []


def test_queries_have_the_vectors_of_text_queries(tmp_path: Path) -> None:
    vectors = PackageVectors(make_tiny_package(tmp_path / "tiny", hidden=64, dimension=32))
    queries = vectors.queries(["bread and an oven", "a bug"])
    np.testing.assert_allclose(queries[0], vectors._encoder.encode_text("bread and an oven"), atol=1e-6)
