"""One training, from a feed to a package: what is learned from, the start, the steps, and what is written.

The steps are sentence-transformers' trainer's. Owns the order of it all, and what a training that was killed goes on
from. Refuses to know the formulas: the loss, the batches and the model have files of their own.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from datasets import Dataset
from datasets.utils import logging as datasets_logging
from msgspec.structs import replace
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import PrinterCallback
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import Unencodable
from encoders.manifest import Manifest, PoolingMode
from encoders.packages import TOKENIZER_FILE, ModelPackage
from encoders.prompts import Prompt, Prompts
from encoders.tokens import SafeTokenizer
from encoders.writer import write_package
from schemas.ids import Micros
from schemas.times import to_rfc3339
from trainer.batches import Draw, FixedBatches, Rows
from trainer.beginnings import Beginning, from_nothing, from_package
from trainer.collator import Collator
from trainer.dataset import TrainingData, training_data
from trainer.errors import BadStart
from trainer.evaluation import Evaluation
from trainer.feed import Feed, rows_at, task_at
from trainer.loss import LeaveOneOut
from trainer.model import Features, PackedLlama, pack_features
from trainer.settings import TrainSettings
from trainer.tables import fit_tables

_PLAN_FILE: Final = "plan.json"
_VERSIONS: Final = ("torch", "transformers", "sentence-transformers", "tokenizers", "scikit-learn", "numpy")
_NO_ROOM: Final = 64 * 1024 * 1024
"""A disk with less is taken for full: the libraries do not say why they could not write."""


class Form(NamedTuple):
    """How texts come to the model. There is one; the benchmark compares it with padded batches."""

    module: Callable[[LlamaModel, PoolingMode], Any]
    features: Callable[..., Features]


PACKED: Final = Form(PackedLlama, pack_features)


class Fitting(NamedTuple):
    trainer: SentenceTransformerTrainer
    seen: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """All that decides what comes out."""

    cut_us: Micros
    tokens: int
    seed: int
    settings: TrainSettings
    package_id: str
    start: Path | None = None
    """A package or a Hugging Face folder; None: from nothing."""

    def record(self, data: TrainingData) -> dict[str, Any]:
        return {
            "until": to_rfc3339(self.cut_us),
            "from": to_rfc3339(Micros(int(data.created_us[0]))),
            "counts": data.counts,
            "tokens": self.tokens,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "start": None if self.start is None else self.start.name,
            "settings": self.settings.model_dump(mode="json"),
            "versions": {name: version(name) for name in _VERSIONS},
        }


def train(feed: Feed, plan: Plan, out: Path, *, resume: bool = False, progress: bool = False) -> ModelPackage:
    """Writes the package to `out`, whole or not at all. Checkpoints lie beside it until then, so that a training that
    was killed goes on with `resume`. Raises TrainerError, PackageError and OSError."""
    if out.exists():
        raise BadStart(f"{out} is there already; a package is never overwritten, choose another folder")
    data = training_data(feed, plan.cut_us)
    held_out = any(positive.at_us >= plan.cut_us for positive in feed.positives)
    task = task_at(feed, plan.cut_us) if held_out else None  # what cannot be measured ends here, not after the steps
    work = out.absolute().parent / f".{out.name}.training"
    record = plan.record(data)
    _open(work, record, resume=resume)
    try:
        begun = begin(plan, data, work)
        fitting = prepare(begun, data, plan, work, progress=progress)
        record |= _fit(fitting, work)
        tables = fit_tables(rows_at(feed, plan.cut_us).posts.values())
        manifest = replace(begun.manifest, quantiles=begun.manifest.quantiles | tables)
        if task is not None:
            record |= _figures(Evaluation(feed, task), begun, manifest, work / "measured")
        package = write_package(out, replace(manifest, training=record), begun.model, begun.tokenizer)
    except BaseException:
        if last_checkpoint(work) is None:
            shutil.rmtree(work)
        raise
    shutil.rmtree(work)
    return package


def _open(work: Path, record: dict[str, Any], *, resume: bool) -> None:
    """Refuses to go on with other events or settings than those of the checkpoints."""
    file = work / _PLAN_FILE
    if work.exists() and not resume:
        raise BadStart(f"{work} holds a training that was not finished; go on with --resume, or remove it")
    if resume and not file.exists():
        raise BadStart(f"{work} holds no training to go on with; leave --resume out")
    if resume and json.loads(file.read_bytes()) != json.loads(json.dumps(record)):
        raise BadStart(f"{work} was begun with other events, settings or versions; give the same, or remove it")
    if not resume:
        work.mkdir(parents=True)
        file.write_text(json.dumps(record))


def begin(plan: Plan, data: TrainingData, work: Path) -> Beginning:
    if plan.start is None:
        return from_nothing(data.texts, plan.settings, plan.package_id, plan.seed, work)
    return from_package(plan.start, plan.package_id, work)


def prepare(
    begun: Beginning, data: TrainingData, plan: Plan, work: Path, *, progress: bool = False, form: Form = PACKED
) -> Fitting:
    """Everything but the steps."""
    prompts = _prompts(begun, data, work, plan.settings.train_tokens)
    rows = Rows(data)
    draw = Draw(data, rows, np.array([len(prompt) for prompt in prompts]), plan.settings)
    batches = draw.batches(plan.tokens, plan.seed)
    features = partial(form.features, pass_tokens=plan.settings.pass_tokens)
    model = SentenceTransformer(modules=[form.module(begun.model, begun.manifest.pooling)])
    datasets_logging.disable_progress_bar()
    trainer = _Trainer(
        model=model,
        args=_arguments(plan, batches, work, progress=progress),
        train_dataset=Dataset.from_dict({"post": rows.post, "owner": rows.owner}),
        loss=LeaveOneOut(model, plan.settings, begun.manifest.dimensions),
        data_collator=cast(Any, Collator(prompts, data.owned, features)),  # it calls it, and asks for nothing else
    )
    trainer.remove_callback(PrinterCallback)
    seen = {"steps": len(batches), "tokens": draw.tokens(batches), "posts": draw.posts(batches)}
    return Fitting(trainer, seen)


def _fit(fitting: Fitting, work: Path) -> dict[str, Any]:
    """Runs the steps; returns what the record says of them."""
    try:
        fitting.trainer.train(resume_from_checkpoint=last_checkpoint(work))
    except (SafetensorError, RuntimeError) as error:
        if shutil.disk_usage(work).free < _NO_ROOM:
            raise BadStart(f"the disk of {work} is full; make room and go on with --resume") from error
        raise
    history = fitting.trainer.state.log_history
    return {"seen": fitting.seen, "losses": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]}


def _prompts(begun: Beginning, data: TrainingData, work: Path, limit: int) -> list[Prompt]:
    begun.tokenizer.save_pretrained(str(work / "tokenizer"))
    manifest = begun.manifest
    limits = replace(manifest.token_limits, post=min(limit, manifest.token_limits.post))
    tokenizer = SafeTokenizer(work / "tokenizer" / TOKENIZER_FILE, manifest.special_tokens)
    found = Prompts(replace(manifest, token_limits=limits), tokenizer).texts(data.texts)
    empty = [tokenizer.special["text"]]
    return [empty if isinstance(prompt, Unencodable) else prompt for prompt in found]


def _arguments(
    plan: Plan, batches: list[list[int]], work: Path, *, progress: bool
) -> SentenceTransformerTrainingArguments:
    settings = plan.settings
    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        batch_sampler=partial(FixedBatches, batches),
        learning_rate=settings.rate,
        learning_rate_mapping={"embed_tokens": settings.embedding_rate},
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,  # batches differ by era; a longer memory holds steps of eras that are over
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * len(batches)),
        seed=plan.seed,
        data_seed=plan.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=settings.checkpoint_steps,  # so that a training that goes on logs the same losses
        report_to="none",
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """No card: a package says in nearline.json what it was trained on."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights alone: a checkpoint is for going on, not for use."""
        assert isinstance(self.model, SentenceTransformer)
        self.model.save_pretrained(str(output_dir or self.args.output_dir), create_model_card=False)


def last_checkpoint(work: Path) -> str | None:
    """The newest whole one; what a kill left half-written is taken away. The state is what is written last."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda one: -int(one.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_bytes())
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder)
    return None


def _figures(evaluation: Evaluation, begun: Beginning, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """A package is written to be measured."""
    shutil.rmtree(folder, ignore_errors=True)
    package = write_package(folder, manifest, begun.model, begun.tokenizer)
    return {"figures": [one.result for one in evaluation.package(package) if one.result.is_main]}
