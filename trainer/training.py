"""One training, from a feed to a package: the data set, the starting point, the steps, and what is written.

Owns the order of these. The trainer of sentence-transformers does the steps. Loss, batches, model and checkpoints have
their own files; no formula is here.
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
from trainer.checkpoints import keep_checkpoints, last_checkpoint, open_work, work_folder
from trainer.data.batches import BatchDrawer, FixedBatches, TrainingRows
from trainer.data.dataset import TrainingData, training_data
from trainer.data.feed import Feed
from trainer.data.quantile_tables import fit_quantile_tables
from trainer.data.replay import replay_until
from trainer.errors import BadStart
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.task import evaluation_task
from trainer.model.collator import Collator
from trainer.model.loss import LeaveOneOut
from trainer.model.packed_llama import Features, PackedLlama, pack_features
from trainer.model.parallel_passes import usable_kernels
from trainer.model.starting_point import StartingPoint, from_package, from_scratch
from trainer.settings import TrainSettings

_VERSIONS: Final = ("torch", "transformers", "sentence-transformers", "peft", "tokenizers", "scikit-learn", "numpy")
_TOKEN_DROPOUT: Final = 0.5
"""The token dropout for a model that is made from scratch, unless the settings name another."""


class BatchFormat(NamedTuple):
    """How texts are laid out for the model. Training uses `PACKED`; the benchmark compares it with padded batches."""

    module: Callable[[LlamaModel, PoolingMode], Any]
    features: Callable[..., Features]


PACKED: Final = BatchFormat(PackedLlama, pack_features)


class PreparedTraining(NamedTuple):
    trainer: SentenceTransformerTrainer
    seen: dict[str, int]
    """The number of steps, tokens and posts in all batches."""


@dataclass(frozen=True)
class Plan:
    """Everything, besides the events, that decides what package a training makes."""

    cut_us: Micros
    """Only events before this time are learned from. Later ones are for the evaluation."""
    tokens: int
    """How many tokens the model is trained on."""
    seed: int
    settings: TrainSettings
    package_id: str
    start: Path | None = None
    """A package or a Hugging Face folder; None: from scratch."""

    @property
    def token_dropout(self) -> float:
        if self.settings.token_dropout is not None:
            return self.settings.token_dropout
        return _TOKEN_DROPOUT if self.start is None else 0.0

    def record(self, data: TrainingData) -> dict[str, Any]:
        """What the package says about its training. The same record and the same events give the same package, file for
        file, on the same kind of processor, also if the training was killed and resumed. That is why the record names
        `threads` (torch's), `versions` and `kernels`: with other values sums are rounded differently. The number of
        threads of BLAS changes nothing, so it is not recorded."""
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
    """Trains, and writes the package to `out`, whole or not at all. Until then checkpoints are kept in a folder beside
    `out`. With `resume` a training that was killed continues at the last checkpoint. If `accelerate launch` runs one
    process for each device, the first process writes the package and the others return None. Raises TrainerError,
    PackageError and OSError."""
    if out.exists():
        raise BadStart(f"{out} is there already; a package is never overwritten, choose another folder")
    data = training_data(feed, plan.cut_us, plan.settings.tasks)
    is_held_out = any(positive.at_us >= plan.cut_us for positive in feed.positives)
    # Made before the steps: if the feed is no good for an evaluation, that must fail now, not after hours of training.
    task = evaluation_task(feed, plan.cut_us) if is_held_out else None
    work = work_folder(out)
    record = plan.record(data)
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            open_work(work, record, resume=resume)
    with keep_checkpoints(work):
        with PartialState().main_process_first():
            start = starting_point(plan, data, work)
        record |= _run_steps(prepare(start, data, plan, work, progress=progress), work)
        if not PartialState().is_main_process:
            return None
        tables = fit_quantile_tables(replay_until(feed, plan.cut_us).posts.values())
        manifest = replace(start.manifest, quantiles=start.manifest.quantiles | tables)
        trained = start._replace(model=start.trained_model(), manifest=manifest)
        if task is not None:
            record |= _measure(Evaluation(feed, task), trained, work / "measured")
        package = write_package(out, replace(manifest, training=record), trained.model, trained.tokenizer)
    shutil.rmtree(work)
    return package


def starting_point(plan: Plan, data: TrainingData, work: Path) -> StartingPoint:
    if plan.start is not None:
        return from_package(plan.start, plan.settings, plan.package_id, plan.seed, work)
    if plan.settings.lora_rank:
        raise BadStart("lora_rank is for a start from a package; give --from, or take lora_rank out of the settings")
    return from_scratch(data.texts, plan.settings, plan.package_id, plan.seed, work)


def prepare(
    start: StartingPoint,
    data: TrainingData,
    plan: Plan,
    work: Path,
    *,
    progress: bool = False,
    batch_format: BatchFormat = PACKED,
) -> PreparedTraining:
    """Does everything that comes before the steps: prompts, batches, model, loss and trainer."""
    with PartialState().main_process_first():
        prompts = _prompts(start, data, work, plan.settings.train_tokens)
    rows = TrainingRows(data)
    share_kept = 1 - plan.token_dropout
    lengths = np.array([math.ceil(share_kept * len(prompt)) for prompt in prompts])
    drawer = BatchDrawer(data, rows, lengths, plan.settings)
    batches = drawer.batches(plan.tokens, plan.seed)
    threads = 1 if torch.cuda.is_available() else torch.get_num_threads()
    features = partial(batch_format.features, pass_tokens=plan.settings.pass_tokens, threads=threads)
    collator = Collator(prompts, features, token_dropout=plan.token_dropout, seed=plan.seed)
    model = SentenceTransformer(modules=[batch_format.module(start.model, start.manifest.pooling)])
    datasets_logging.disable_progress_bar()
    trainer = _Trainer(
        model=model,
        args=_arguments(plan, batches, work, progress=progress),
        train_dataset=Dataset.from_dict({"post": rows.post, "owner": rows.owner}),
        loss=LeaveOneOut(model, plan.settings, start.manifest.dimensions, data.owned),
        data_collator=cast(Any, collator),  # the trainer only calls it
    )
    trainer.remove_callback(PrinterCallback)
    seen = {"steps": len(batches), "tokens": drawer.num_tokens(batches), "posts": drawer.num_posts(batches)}
    return PreparedTraining(trainer, seen)


def _run_steps(prepared: PreparedTraining, work: Path) -> dict[str, Any]:
    """Runs the training steps. Returns what the record says about them."""
    with PartialState().main_process_first():
        checkpoint = last_checkpoint(work)
    prepared.trainer.train(resume_from_checkpoint=checkpoint)
    history = prepared.trainer.state.log_history
    return {"seen": prepared.seen, "losses": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]}


def _prompts(start: StartingPoint, data: TrainingData, work: Path, limit: int) -> list[Prompt]:
    """The prompts of all posts and then of all parts of posts, cut to `limit` tokens. A text that cannot be encoded
    becomes an empty prompt."""
    start.tokenizer.save_pretrained(str(work / "tokenizer"))
    manifest = start.manifest
    limits = replace(manifest.token_limits, post=min(limit, manifest.token_limits.post))
    tokenizer = SafeTokenizer(work / "tokenizer" / TOKENIZER_FILE, manifest.special_tokens)
    prompts = Prompts(replace(manifest, token_limits=limits), tokenizer).texts([*data.texts, *data.parts])
    empty_text = [tokenizer.special["text"]]
    return [empty_text if isinstance(prompt, Unencodable) else prompt for prompt in prompts]


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
        adam_beta2=0.98,  # batches differ in their era; a longer memory would hold the gradients of past eras
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * (len(batches) // get_world_size())),
        seed=plan.seed,
        data_seed=plan.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=2,
        logging_steps=settings.checkpoint_steps,  # the same steps, so that a resumed training logs the same losses
        report_to="none",
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Writes no model card: a package says in nearline.json what it was trained on."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the weights alone: a checkpoint is there to resume from, not to be used as a model."""
        assert isinstance(self.model, SentenceTransformer)
        self.model.save_pretrained(str(output_dir or self.args.output_dir), create_model_card=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert isinstance(self.model, SentenceTransformer)
        cast(PackedLlama, self.model[0]).restore(Path(resume_from_checkpoint))


def _measure(evaluation: Evaluation, trained: StartingPoint, folder: Path) -> dict[str, Any]:
    """Evaluates the trained model and returns its figures for the record. Only a package can be evaluated, so one is
    written to `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    package = write_package(folder, trained.manifest, trained.model, trained.tokenizer)
    return {"figures": [measured.result for measured in evaluation.package(package) if measured.result.is_main]}
