"""What is tried before a training: which member form, whether texts alone, and how many tokens, on an inner split of
its events.

The events before the cut are split again. A training on the earlier part is measured on the later part; nothing from
the cut on is read. Measurements are kept in the work folder, and a training that was killed does not measure again.
Owns the inner split and the choice. The steps themselves are those of any training.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState

from encoders.package.manifest import FormName, form_name
from encoders.package_writer import write_package
from schemas.ids import Micros
from schemas.times import to_rfc3339
from trainer.checkpoints import last_checkpoint
from trainer.data.feed import Feed
from trainer.device_use import is_sharded
from trainer.errors import BadEvents, BadStart
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.task import evaluation_task
from trainer.model.starting_point import StartingPoint
from trainer.plan import Plan
from trainer.preparation import planned_data, prepare, starting_point

_K: Final = "100"
_FORMS: Final[tuple[FormName, ...]] = ("mean", "prompt")
TEXTS: Final = "texts"
"""In place of a member form: that of the mean, and prompts of texts alone."""


class Quality(NamedTuple):
    """How well the members of the inner split are served. With few candidates Recall@100 may be 1 for all; NDCG then
    decides."""

    recall: float
    ndcg: float


class _Tried(NamedTuple):
    tokens: int
    """After how many tokens it was best."""
    best: Quality
    measured: list[tuple[int, Quality]]
    """After each so many tokens."""


def try_on_inner_split(feed: Feed, plan: Plan, work: Path, *, progress: bool = False) -> tuple[Plan, dict[str, Any]]:
    """The plan with what was chosen, and what the record says about the choice. The plan itself where its settings
    leave nothing to be chosen. Raises TrainerError."""
    settings = plan.settings
    if settings.member_form != "auto" and settings.evaluate_tokens is None:
        return plan, {}
    if settings.lora_rank and settings.evaluate_tokens is not None:
        raise BadStart("evaluate_tokens cannot be used with lora_rank: adapters are merged only once; take one out")
    if is_sharded():
        raise BadStart(
            "nothing is tried on an inner split while the weights are divided among devices; set member_form to mean "
            "or prompt, and take evaluate_tokens out of the settings"
        )
    earlier = Feed(feed.before(plan.cut_us), feed.rules)
    cut_us = earlier.cut(settings.inner_holdout)
    # A base may know some of the later part already; nothing of that is measured on.
    known_until_us = replace(plan, cut_us=cut_us).until_us
    try:
        evaluation = Evaluation(earlier, evaluation_task(earlier, known_until_us))
    except BadEvents as error:
        if known_until_us == cut_us:
            raise
        raise BadStart(
            f"{plan.start} was trained until {to_rfc3339(known_until_us)}, so too little is new to it before the held "
            "out actions to stop early by; take evaluate_tokens out of the settings"
        ) from error
    candidates = _candidates(plan)
    tried = {
        name: _InnerTraining(evaluation, replace(each, cut_us=cut_us), work / f"inner-{name}").run(earlier, progress)
        for name, each in candidates.items()
    }
    chosen = max(tried, key=lambda name: tried[name].best)
    tokens = plan.tokens if settings.evaluate_tokens is None else tried[chosen].tokens
    record = {
        "inner_split": {
            "until": to_rfc3339(cut_us),
            "chosen": chosen,
            "measured": {
                name: [{"tokens": at, **quality._asdict()} for at, quality in of_candidate.measured]
                for name, of_candidate in tried.items()
            },
        }
    }
    return replace(candidates[chosen], tokens=tokens), record


def inner_cut(feed: Feed, cut_us: Micros, inner_holdout: float) -> Micros | None:
    """Where the events before the cut are split again; None where nobody could be measured then."""
    earlier = Feed(feed.before(cut_us), feed.rules)
    try:
        inner_cut_us = earlier.cut(inner_holdout)
        evaluation_task(earlier, inner_cut_us)
    except BadEvents:
        return None
    return inner_cut_us


def _candidates(plan: Plan) -> dict[str, Plan]:
    """By name: the member form, or texts alone."""
    settings = plan.settings
    if settings.member_form != "auto":
        return {form_name(plan.prompts.form): plan}
    candidates: dict[str, Plan] = {
        form: replace(plan, settings=settings.model_copy(update={"member_form": form}), texts_alone=None)
        for form in _FORMS
    }
    if plan.texts_alone is not None:
        candidates[TEXTS] = replace(plan, settings=plan.texts_alone, texts_alone=None)
    return candidates


class _InnerTraining:
    """A training on the earlier part of the events. It leaves no package."""

    def __init__(self, evaluation: Evaluation, plan: Plan, folder: Path) -> None:
        self._evaluation = evaluation
        self._plan = plan
        self._folder = folder

    def run(self, feed: Feed, progress: bool) -> _Tried:
        with PartialState().main_process_first():
            self._folder.mkdir(exist_ok=True)
            checkpoint = last_checkpoint(self._folder)
        measurements = Measurements(self._folder / "measurements.json")
        data = planned_data(feed, self._plan)
        with PartialState().main_process_first():
            start = starting_point(self._plan, data, self._folder)
        prepared = prepare(start, data, self._plan, self._folder, progress=progress)
        steps, tokens = prepared.seen["steps"], prepared.seen["tokens"]
        every = self._plan.settings.evaluate_tokens
        stop = StopEarly(
            measurements,
            lambda: self._quality(start),
            steps if every is None else min(steps, -(-steps * every // tokens)),
            self._plan.settings.patience,
        )
        if every is not None:
            prepared.trainer.add_callback(stop)
        if not measurements.are_complete:
            prepared.trainer.train(resume_from_checkpoint=checkpoint)
            stop.measure_at(int(prepared.trainer.state.global_step))
            measurements.complete()
            for leftover in self._folder.glob("checkpoint-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        prepared.trainer.finish()
        measured = [(tokens * step // steps, quality) for step, quality in measurements]
        best_tokens, best = max(measured, key=lambda entry: entry[1])
        return _Tried(best_tokens, best, measured)

    def _quality(self, start: StartingPoint) -> Quality:
        """Of the model as it is now."""
        folder = self._folder / "measured"
        shutil.rmtree(folder, ignore_errors=True)
        package = write_package(folder, start.manifest, start.trained_model(), start.tokenizer)
        figures = self._evaluation.as_served(package).result.groups["protocol"]
        shutil.rmtree(folder)
        return Quality(figures.recall[_K], figures.ndcg)


class Measurements:
    """By step, in a file that is replaced as a whole: a kill within a write costs one measurement at most."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read()

    def __iter__(self) -> Iterator[tuple[int, Quality]]:
        return iter(sorted(self._by_step.items()))

    def __contains__(self, step: int) -> bool:
        return step in self._by_step

    def add(self, step: int, measure: Callable[[], Quality]) -> None:
        """One process measures, the others read what it wrote."""
        with PartialState().main_process_first():
            if PartialState().is_main_process:
                self._by_step[step] = measure()
                self._write()
            else:
                self._read()

    def complete(self) -> None:
        with PartialState().main_process_first():
            self.are_complete = True
            if PartialState().is_main_process:
                self._write()

    def _read(self) -> None:
        content: dict[str, Any] = (
            json.loads(self._file.read_bytes()) if self._file.exists() else {"steps": {}, "complete": False}
        )
        self._by_step = {int(step): Quality(*quality) for step, quality in content["steps"].items()}
        self.are_complete = bool(content["complete"])

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"steps": self._by_step, "complete": self.are_complete}))
        partial.replace(self._file)


class StopEarly(TrainerCallback):
    """Measures every `steps_between` steps, and ends the training when no measurement was better than the best one for
    `patience` measurements."""

    def __init__(
        self, measurements: Measurements, measure: Callable[[], Quality], steps_between: int, patience: int
    ) -> None:
        self._measurements = measurements
        self._measure = measure
        self._steps_between = steps_between
        self._patience = patience

    def measure_at(self, step: int) -> None:
        """Nothing is measured twice."""
        if step not in self._measurements:
            self._measurements.add(step, self._measure)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self._steps_between:
            return
        self.measure_at(state.global_step)
        so_far = [entry for entry in self._measurements if entry[0] <= state.global_step]
        best_step = max(so_far, key=lambda entry: entry[1])[0]
        if state.global_step - best_step >= self._patience * self._steps_between:
            control.should_training_stop = True
