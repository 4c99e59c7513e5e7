"""What the trainer's tasks teach each other: each alone, all together, all but one, and none, at equal tokens.

`python -m benchmarks.tasks [--events FILE] [--tokens N] [--seeds N] [--quick] [--json F]`. An arm is one training; it
is measured by Recall@100 and AUC of every task on held out posts, and by the main task's Recall@100 of held out
actions. Two arms are compared by a bootstrap over what looks, of all seeds together. All but one, at the task that was
left out, are compared with the untrained start: what is learned of a task without ever seeing it. Without `--events`
it makes a world of its own. Also shown: what 50 numbers of a vector keep of each task's Recall@100, and the AUC of
shuffled labels, which must be chance. `--quick` only shows that it works.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from benchmarks.kit.table import Figure, report
from benchmarks.kit.task_world import task_feed
from encoders.package.model_package import ModelPackage
from nearline.commands._recorded_events import read_feed
from nearline.demo.world import WorldSize
from trainer.data.auxiliary_tasks import TASKS
from trainer.data.feed import Feed
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.ranking_metrics import Numbers, share_better
from trainer.evaluation.task import evaluation_task
from trainer.evaluation.task_figures import held_out_tasks, measure, measure_tasks, task_vectors
from trainer.evaluation.untrained import untrained_start
from trainer.plan import Plan
from trainer.settings import TrainSettings
from trainer.training import train

MAIN: Final = "main"
UNTRAINED: Final = "untrained"
_HOLDOUT: Final = 0.15
_NARROW: Final = 50
_SURE: Final = 0.95
_SHUFFLES: Final = 8
"""One alone may bring posts of a few large clusters together."""
_QUICK_WORLD: Final = WorldSize(2_000, 150, 10_000, 7.0)
_QUICK: Final = TrainSettings(hidden=64, layers=1, heads=2, vocabulary=1_000, dimensions=(64,), batch_tokens=1_024)
_QUICK_TOKENS: Final = 20_000


class Arm(NamedTuple):
    name: str
    tasks: tuple[str, ...]


class Measured(NamedTuple):
    """Of one arm, by task. `recalls`: of each that looks, of all seeds one after the other."""

    recalls: dict[str, Numbers]
    aucs: dict[str, float]

    def recall(self, task: str) -> float:
        return float(self.recalls[task].mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="of each arm")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quick, settings = arguments.quick, _QUICK if arguments.quick else TrainSettings()
    tokens = _QUICK_TOKENS if quick else arguments.tokens
    feed = read_feed([arguments.events]) if arguments.events else task_feed(size=_QUICK_WORLD) if quick else task_feed()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as name:
        trainings = Trainings(feed, settings, tokens, range(arguments.seeds), Path(name))
        figures = trainings.figures()
    # Of a training that is far too short nothing follows.
    return report([figure._replace(bound=None) for figure in figures] if quick else figures, arguments.json)


class Trainings:
    """All arms, on one feed. Their packages stay in `folder`."""

    def __init__(self, feed: Feed, settings: TrainSettings, tokens: int, seeds: Iterable[int], folder: Path) -> None:
        self._feed = feed
        self._cut_us = feed.cut(_HOLDOUT)
        self._settings = settings
        self._tokens = tokens
        self._seeds = tuple(seeds)
        self._folder = folder
        self._evaluation = Evaluation(feed, evaluation_task(feed, self._cut_us))
        self._held_out = held_out_tasks(feed, self._cut_us)
        self._tasks = (MAIN, *(task.name for task in self._held_out))

    def figures(self) -> list[Figure]:
        if missing := set(TASKS) - set(self._tasks):
            raise SystemExit(f"the held out posts hold nothing for {', '.join(sorted(missing))}; give other --events")
        everything = Arm("all", self._tasks)
        arms = [everything]
        arms += [Arm(f"{task} alone", (task,)) for task in self._tasks]
        arms += [Arm(f"all but {task}", tuple(other for other in self._tasks if other != task)) for task in self._tasks]
        measured: dict[str, Measured] = {}
        for arm in arms:
            print(f"training: {arm.name}", flush=True)
            measured[arm.name] = self._measured([self._trained(arm, seed) for seed in self._seeds])
        measured[UNTRAINED] = self._measured([self._untrained(everything, seed) for seed in self._seeds])
        rows = [Figure(f"{arm}: {name}", value) for arm, of_arm in measured.items() for name, value in _of_arm(of_arm)]
        return [
            *rows,
            *_transfer(measured, self._tasks),
            *_zero_shot(measured, self._tasks),
            *self._of_all(self._package(everything, self._seeds[0])),
        ]

    def _trained(self, arm: Arm, seed: int) -> ModelPackage:
        weights = {task: 1.0 for task in arm.tasks if task != MAIN}
        fields = self._settings.model_dump() | {"main": float(MAIN in arm.tasks), "tasks": weights}
        plan = Plan(self._cut_us, self._tokens, seed, TrainSettings.model_validate(fields), "tasks")
        package = train(self._feed, plan, self._package_folder(arm, seed))
        assert package is not None, "one process trains"
        return package

    def _untrained(self, arm: Arm, seed: int) -> ModelPackage:
        """With what every arm of this seed began: no task changes it."""
        folder = self._folder / f"{UNTRAINED}-{seed}"
        package = untrained_start(self._package(arm, seed), self._feed, self._cut_us, folder)
        assert package is not None, "all arms are made from nothing"
        return package

    def _package_folder(self, arm: Arm, seed: int) -> Path:
        return self._folder / f"{arm.name.replace(' ', '-')}-{seed}"

    def _package(self, arm: Arm, seed: int) -> ModelPackage:
        return ModelPackage.load(self._package_folder(arm, seed))

    def _measured(self, packages: list[ModelPackage]) -> Measured:
        """All seeds ask the same questions, so their answers follow one another."""
        recalls: dict[str, list[Numbers]] = {task: [] for task in self._tasks}
        aucs: dict[str, list[float]] = {}
        for package in packages:
            recalls[MAIN].append(self._evaluation.recalls(self._evaluation.as_served(package), 100))
            for task in measure_tasks(package, self._held_out):
                recalls[task.figures.task].append(task.recalls)
                aucs.setdefault(task.figures.task, []).append(task.figures.auc)
        return Measured(
            {task: np.concatenate(values) for task, values in recalls.items()},
            {task: float(np.mean(values)) for task, values in aucs.items()},
        )

    def _of_all(self, package: ModelPackage) -> list[Figure]:
        chance = []
        for task, vectors in zip(self._held_out, task_vectors(package, self._held_out), strict=True):
            shuffled = (measure(task.with_shuffled_labels(seed), *vectors) for seed in range(_SHUFFLES))
            chance.append(abs(np.mean([each.figures.auc for each in shuffled]) - 0.5))
        return [
            Figure("largest distance of a task's AUC from 0.5, labels shuffled", float(max(chance)), 0.02, "at_most"),
            *(
                Figure(f"Recall@100 of {task}, {_NARROW} numbers / all", share, 0.97)
                for task, share in self._kept(package)
            ),
        ]

    def _kept(self, package: ModelPackage) -> Iterator[tuple[str, float]]:
        """Of each task the share of its Recall@100 that is left where vectors are cut as in `post-vectors`."""
        narrow_dimension = min(_NARROW, package.dimension)
        manifest = replace(package.manifest, dimensions=(narrow_dimension, package.dimension))
        measured = self._evaluation.package(ModelPackage(package.folder, manifest, package.digest))
        of_main = {
            each.result.dimension: float(self._evaluation.recalls(each, 100).mean())
            for each in measured
            if each.result.history == "acted"
        }
        yield MAIN, of_main[narrow_dimension] / of_main[package.dimension]
        whole = measure_tasks(package, self._held_out)
        narrow = measure_tasks(package, self._held_out, dimension=narrow_dimension)
        for part, all_ in zip(narrow, whole, strict=True):
            yield part.figures.task, part.figures.recall_100 / all_.figures.recall_100


def _of_arm(measured: Measured) -> list[tuple[str, float]]:
    recalls = [(f"Recall@100 of {task}", measured.recall(task)) for task in measured.recalls]
    return [*recalls, *((f"AUC of {task}", auc) for task, auc in measured.aucs.items())]


def _transfer(measured: dict[str, Measured], tasks: Iterable[str]) -> list[Figure]:
    """Of the tasks beside the main one: where all together are not surely worse than alone, and where surely better."""
    together = measured["all"]
    figures, not_worse, better = [], 0, 0
    for task in tasks:
        alone = measured[f"{task} alone"]
        share = share_better(together.recalls[task], alone.recalls[task])
        figures.append(Figure(f"share of resamples in which all is better at {task} than alone", share))
        if task != MAIN:
            not_worse += share_better(alone.recalls[task], together.recalls[task]) < _SURE
            better += share >= _SURE
    return [
        *figures,
        Figure("tasks at which all is at least as good as alone", not_worse, len(TASKS)),
        Figure("tasks at which all is better than alone", better, 2),
    ]


def _zero_shot(measured: dict[str, Measured], tasks: Iterable[str]) -> list[Figure]:
    untrained = measured[UNTRAINED]
    return [
        Figure(
            f"share of resamples in which all but {task} is better at {task} than the untrained start",
            share_better(measured[f"all but {task}"].recalls[task], untrained.recalls[task]),
        )
        for task in tasks
    ]


if __name__ == "__main__":
    raise SystemExit(main())
