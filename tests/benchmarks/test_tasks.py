"""All arms of the benchmark of tasks in tiny sizes, so that it runs whenever somebody wants its figures."""

from pathlib import Path

import pytest

from benchmarks import tasks as benchmark
from benchmarks.kit.task_world import task_feed
from benchmarks.tasks import MAIN, UNTRAINED, Trainings
from nearline.demo.world import WorldSize
from tests.kit.torch_threads import torch_threads
from trainer.data.auxiliary_tasks import TASKS
from trainer.settings import TrainSettings

TINY_WORLD = WorldSize(300, 40, 1_500, 7.0)
TINY = TrainSettings(
    hidden=32, layers=1, heads=1, vocabulary=500, post_tokens=32, dimensions=(32,), batch_tokens=512, era=200
)


def test_every_arm_is_trained_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_NARROW", 4)  # of 32
    with torch_threads(1):
        feed = task_feed(size=TINY_WORLD)
        figures = {figure.name: figure for figure in Trainings(feed, TINY, 1_000, [0], tmp_path).figures()}
    tasks = (MAIN, *TASKS)
    arms = ["all", UNTRAINED, *(name for task in tasks for name in (f"{task} alone", f"all but {task}"))]
    recalls = [figures[f"{arm}: Recall@100 of {task}"].value for arm in arms for task in tasks]
    assert all(0 < recall <= 1 for recall in recalls)
    assert len({figures[f"{arm}: AUC of interest"].value for arm in arms}) == len(arms), "each is a model of its own"
    for task in tasks:
        zero_shot = f"share of resamples in which all but {task} is better at {task} than the untrained start"
        assert 0 <= figures[zero_shot].value <= 1
    kept = [figures[f"Recall@100 of {task}, 4 numbers / all"] for task in tasks]
    assert [(figure.value, figure.bound) for figure in kept] == [(1, 0.97)] * 5, "fewer than 100 posts are held out"
    assert figures["largest distance of a task's AUC from 0.5, labels shuffled"].value < 0.1
