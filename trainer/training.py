"""One training, from a feed to a package: what is learned from, the start, the steps, and what is written.

The steps are sentence-transformers' trainer's. Owns the order of it all. Refuses to know the formulas: the loss, the
batches, the model and what a killed training goes on from have files of their own.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from datasets.utils import logging as datasets_logging
from msgspec.structs import replace
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.util import get_world_size
from transformers import PrinterCallback
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import Unencodable
from encoders.package.manifest import PoolingMode
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.package_writer import write_package
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from schemas.ids import Micros
from schemas.times import to_rfc3339
from trainer.checkpoints import kept_if_worth_it, last_checkpoint, open_work, work_folder
from trainer.data.batches import Draw, FixedBatches, Rows
from trainer.data.dataset import TrainingData, training_data
from trainer.data.feed import Feed, rows_at, task_at
from trainer.data.quantile_tables import fit_tables
from trainer.errors import BadStart
from trainer.evaluation.evaluation import Evaluation
from trainer.model.collator import Collator
from trainer.model.loss import LeaveOneOut
from trainer.model.packed_llama import Features, PackedLlama, pack_features
from trainer.model.parallel_passes import usable_kernels
from trainer.model.starting_point import StartingPoint, from_package, from_scratch
from trainer.settings import TrainSettings

_VERSIONS: Final = ("torch", "transformers", "sentence-transformers", "peft", "tokenizers", "scikit-learn", "numpy")


_DROPOUT: Final = 0.5
"""From nothing, of tokens."""


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

    @property
    def token_dropout(self) -> float:
        chosen = self.settings.token_dropout
        return (_DROPOUT if self.start is None else 0.0) if chosen is None else chosen

    def record(self, data: TrainingData) -> dict[str, Any]:
        """What a package says of its training. The same record, of the same events and on the same kind of
        processor, gives the same package, file for file, also after a kill: sums are rounded in another order only by
        other `threads` (torch's), other `versions`, or with `kernels` and without. BLAS's number of threads changes
        nothing, so it is not in here."""
        return {
            "until": to_rfc3339(self.cut_us),
            "from": to_rfc3339(Micros(int(data.created_us[0]))),
            "counts": data.counts,
            "tokens": self.tokens,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "kernels": usable_kernels() is not None,
            "start": None if self.start is None else self.start.name,
            "settings": self.settings.model_dump(mode="json") | {"token_dropout": self.token_dropout},
            "versions": {name: version(name) for name in _VERSIONS},
        }


def train(feed: Feed, plan: Plan, out: Path, *, resume: bool = False, progress: bool = False) -> ModelPackage | None:
    """Writes the package to `out`, whole or not at all. Checkpoints lie beside it until then, so that a training that
    was killed goes on with `resume`. Where `accelerate launch` runs one process for each device, the first one writes
    and the others return None. Raises TrainerError, PackageError and OSError."""
    if out.exists():
        raise BadStart(f"{out} is there already; a package is never overwritten, choose another folder")
    data = training_data(feed, plan.cut_us, plan.settings.tasks)
    held_out = any(positive.at_us >= plan.cut_us for positive in feed.positives)
    task = task_at(feed, plan.cut_us) if held_out else None  # what cannot be measured ends here, not after the steps
    work = work_folder(out)
    record = plan.record(data)
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            open_work(work, record, resume=resume)
    with kept_if_worth_it(work):
        with PartialState().main_process_first():
            begun = begin(plan, data, work)
        fitting = prepare(begun, data, plan, work, progress=progress)
        record |= _fit(fitting, work)
        if not PartialState().is_main_process:
            return None
        tables = fit_tables(rows_at(feed, plan.cut_us).posts.values())
        manifest = replace(begun.manifest, quantiles=begun.manifest.quantiles | tables)
        begun = begun._replace(model=begun.trained_model(), manifest=manifest)
        if task is not None:
            record |= _figures(Evaluation(feed, task), begun, work / "measured")
        package = write_package(out, replace(manifest, training=record), begun.model, begun.tokenizer)
    shutil.rmtree(work)
    return package


def begin(plan: Plan, data: TrainingData, work: Path) -> StartingPoint:
    if plan.start is None:
        if plan.settings.lora_rank:
            raise BadStart(
                "lora_rank is for a start from a package; give --from, or take lora_rank out of the settings"
            )
        return from_scratch(data.texts, plan.settings, plan.package_id, plan.seed, work)
    return from_package(plan.start, plan.settings, plan.package_id, plan.seed, work)


def prepare(
    begun: StartingPoint, data: TrainingData, plan: Plan, work: Path, *, progress: bool = False, form: Form = PACKED
) -> Fitting:
    """Everything but the steps."""
    with PartialState().main_process_first():
        prompts = _prompts(begun, data, work, plan.settings.train_tokens)
    rows = Rows(data)
    kept = 1 - plan.token_dropout
    draw = Draw(data, rows, np.array([math.ceil(kept * len(prompt)) for prompt in prompts]), plan.settings)
    batches = draw.batches(plan.tokens, plan.seed)
    threads = 1 if torch.cuda.is_available() else torch.get_num_threads()
    features = partial(form.features, pass_tokens=plan.settings.pass_tokens, threads=threads)
    collator = Collator(prompts, features, token_dropout=plan.token_dropout, seed=plan.seed)
    model = SentenceTransformer(modules=[form.module(begun.model, begun.manifest.pooling)])
    datasets_logging.disable_progress_bar()
    trainer = _Trainer(
        model=model,
        args=_arguments(plan, batches, work, progress=progress),
        train_dataset=Dataset.from_dict({"post": rows.post, "owner": rows.owner}),
        loss=LeaveOneOut(model, plan.settings, begun.manifest.dimensions, data.owned),
        data_collator=cast(Any, collator),  # it calls it, and asks for nothing else
    )
    trainer.remove_callback(PrinterCallback)
    seen = {"steps": len(batches), "tokens": draw.tokens(batches), "posts": draw.posts(batches)}
    return Fitting(trainer, seen)


def _fit(fitting: Fitting, work: Path) -> dict[str, Any]:
    """Runs the steps; returns what the record says of them."""
    with PartialState().main_process_first():
        checkpoint = last_checkpoint(work)
    fitting.trainer.train(resume_from_checkpoint=checkpoint)
    history = fitting.trainer.state.log_history
    return {"seen": fitting.seen, "losses": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]}


def _prompts(begun: StartingPoint, data: TrainingData, work: Path, limit: int) -> list[Prompt]:
    begun.tokenizer.save_pretrained(str(work / "tokenizer"))
    manifest = begun.manifest
    limits = replace(manifest.token_limits, post=min(limit, manifest.token_limits.post))
    tokenizer = SafeTokenizer(work / "tokenizer" / TOKENIZER_FILE, manifest.special_tokens)
    found = Prompts(replace(manifest, token_limits=limits), tokenizer).texts([*data.texts, *data.parts])
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
        warmup_steps=int(settings.warmup * (len(batches) // get_world_size())),
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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert isinstance(self.model, SentenceTransformer)
        cast(PackedLlama, self.model[0]).restore(Path(resume_from_checkpoint))


def _figures(evaluation: Evaluation, begun: StartingPoint, folder: Path) -> dict[str, Any]:
    """A package is written to be measured."""
    shutil.rmtree(folder, ignore_errors=True)
    package = write_package(folder, begun.manifest, begun.model, begun.tokenizer)
    return {"figures": [one.result for one in evaluation.package(package) if one.result.is_main]}
