"""One training, from a feed to a package: the data set, the starting point, the steps, and what is written.

Owns the order of these. What comes before the steps is in `preparation`, what is tried first in `inner_split`.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from msgspec.structs import replace

from encoders.errors import EncoderError
from encoders.package.model_package import ModelPackage
from encoders.package_writer import write_package
from trainer.checkpoints import keep_checkpoints, last_checkpoint, open_work, work_folder
from trainer.data.dataset import TrainingData
from trainer.data.feed import Feed
from trainer.errors import BadEvents, BadStart
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.rivals import rivals_for_nothing, untrained_rival
from trainer.evaluation.task import EvaluationTask, evaluation_task
from trainer.inner_split import try_on_inner_split
from trainer.model.starting_point import StartingPoint
from trainer.plan import Plan
from trainer.preparation import PreparedTraining, planned_data, prepare, starting_point


def train(feed: Feed, plan: Plan, out: Path, *, resume: bool = False, progress: bool = False) -> ModelPackage | None:
    """Trains, and writes the package to `out`, whole or not at all. Until then checkpoints are kept in a folder beside
    `out`. With `resume` a training that was killed continues at the last checkpoint. If `accelerate launch` runs one
    process for each device, the first process writes the package and the others return None. Raises TrainerError,
    PackageError and OSError."""
    if out.exists():
        raise BadStart(f"{out} is there already; a package is never overwritten, choose another folder")
    plan.refuse_what_is_not_learned()
    data = planned_data(feed, plan)
    # Made before the steps: if the feed is no good for an evaluation, that must fail now, not after hours of training.
    task = _held_out_task(feed, plan)
    work = work_folder(out)
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            open_work(work, plan.record(data), resume=resume)
    with keep_checkpoints(work):
        plan, tried = try_on_inner_split(feed, plan, work, progress=progress)
        if tried:
            data = planned_data(feed, plan)
        record = plan.record(data) | tried
        with PartialState().main_process_first():
            start = starting_point(plan, data, work)
        prepared = prepare(start, data, plan, work, progress=progress)
        record |= _run_steps(prepared, work)
        learned = prepared.trainer.finish()
        if not PartialState().is_main_process:
            return None
        if learned is not None:  # what is divided among devices is put into a model that is not
            start = starting_point(plan, data, work)
            start.model.load_state_dict(learned)
        trained = start._replace(model=start.trained_model())
        if task is not None:
            start_package = partial(_start_package, plan, data, work)
            record |= _measure(Evaluation(feed, task), trained, start_package, work / "measured")
        manifest = replace(trained.manifest, training=record)
        package = write_package(out, manifest, trained.model, trained.tokenizer)
    shutil.rmtree(work)
    return package


def _held_out_task(feed: Feed, plan: Plan) -> EvaluationTask | None:
    """What the package is measured on: actions that are newer than all that it or its base has learned from. Raises
    BadEvents where there are such actions of this training and they do not do; of what a base knows beyond the cut,
    nobody asks that there be more."""
    if not any(positive.at_us >= plan.until_us for positive in feed.positives):
        return None
    try:
        return evaluation_task(feed, plan.until_us)
    except BadEvents:
        if plan.until_us > plan.cut_us:
            return None
        raise


def _run_steps(prepared: PreparedTraining, work: Path) -> dict[str, Any]:
    """Runs the training steps. Returns what the record says about them."""
    with PartialState().main_process_first():
        checkpoint = last_checkpoint(work)
    prepared.trainer.train(resume_from_checkpoint=checkpoint)
    history = prepared.trainer.state.log_history
    return {"seen": prepared.seen, "losses": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]}


def _start_package(plan: Plan, data: TrainingData, work: Path) -> ModelPackage:
    """What training began with. Where that was nothing, it is made once more, because training has changed it."""
    if plan.start is not None:
        base_folder = work / "base"  # of a Hugging Face folder
        return ModelPackage.load(base_folder if base_folder.exists() else plan.start)
    folder = work / "untrained"
    shutil.rmtree(folder, ignore_errors=True)
    start = starting_point(plan, data, work)
    # Without golden texts: where the last token is pooled, an untrained model may give one a vector of zeros.
    return write_package(folder, start.manifest, start.model, start.tokenizer, golden_texts=())


def _measure(
    evaluation: Evaluation, trained: StartingPoint, start_package: Callable[[], ModelPackage], folder: Path
) -> dict[str, Any]:
    """The figures of the trained model for the record, and of what one could have for nothing. Only a package can be
    evaluated, so one is written to `folder`. A start that cannot be measured is left out, and the record says why: it
    must not cost the training that is done."""
    shutil.rmtree(folder, ignore_errors=True)
    package = write_package(folder, trained.manifest, trained.model, trained.tokenizer)
    results = [measured for measured in evaluation.package(package) if measured.result.is_main]
    as_served = next(measured for measured in results if measured.result.history == "wrote")
    rivals = list(rivals_for_nothing(evaluation, as_served, None))
    record: dict[str, Any] = {"figures": [measured.result for measured in results], "rivals": rivals}
    try:
        rivals.append(untrained_rival(evaluation, as_served, start_package()))
    except EncoderError as error:
        record["untrained_not_measured"] = str(error)
    return record
