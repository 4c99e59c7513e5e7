"""What comes before the steps of a training: starting point, prompts, batches, model, loss and trainer.

The trainer of sentence-transformers does the steps. Owns how it is set up. Loss, batches, model and checkpoints have
their own files; no formula is here.
"""

import math
from collections.abc import Callable
from functools import partial
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
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import Unencodable
from encoders.package.manifest import Manifest, PoolingMode
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from trainer.data.batches import BatchDrawer, FixedBatches, TrainingRows
from trainer.data.dataset import TrainingData, training_data
from trainer.data.feed import Feed
from trainer.data.named_fields import refuse_missing_fields, refuse_missing_numbers
from trainer.data.pair_batches import draw_pairs
from trainer.data.rendering import TrainingPrompts
from trainer.device_use import DeviceUse, is_sharded
from trainer.errors import BadStart
from trainer.model.collator import Collator
from trainer.model.loss import LeaveOneOut
from trainer.model.packed_llama import Features, PackedLlama, pack_features
from trainer.model.pair_collator import PairCollator
from trainer.model.pair_loss import PairLoss
from trainer.model.reproducible import reproducible
from trainer.model.starting_point import StartingPoint, from_package, from_scratch
from trainer.model.tokenizer import save_tokenizer
from trainer.plan import Plan


class BatchFormat(NamedTuple):
    """How texts are laid out for the model. Training uses `PACKED`; the benchmark compares it with padded batches."""

    module: Callable[[LlamaModel, PoolingMode, DeviceUse], Any]
    features: Callable[..., Features]


_OF_MODEL: Final = "0.llama."
"""Before the name of each weight: the model is the first module of sentence-transformers'."""
_MAX_GRADIENT_NORM: Final = 1.0
"""Gradients are scaled down to it, so that one strange batch does not undo what was learned."""

PACKED: Final = BatchFormat(PackedLlama, pack_features)


class PreparedTraining(NamedTuple):
    trainer: "PackedTrainer"
    seen: dict[str, int]
    """The number of steps, tokens and posts in all batches."""


def planned_data(feed: Feed, plan: Plan) -> TrainingData:
    """What the plan learns from. Raises BadEvents and BadStart."""
    if plan.settings.templates is not None:
        refuse_missing_fields(feed, plan.cut_us, plan.settings.templates)
    elif plan.start is not None:
        refuse_missing_numbers(feed, plan.cut_us, plan.prompts.templates.post, plan.start)
    return training_data(feed, plan.cut_us, plan.settings.tasks, example_negatives=plan.example_negatives)


def starting_point(plan: Plan, data: TrainingData, work: Path) -> StartingPoint:
    if plan.start is not None:
        return from_package(plan.start, data, plan, work)
    if plan.settings.lora_rank:
        raise BadStart("lora_rank is for a start from a package; give --from, or take lora_rank out of the settings")
    return from_scratch(data, plan, work)


class _Steps(NamedTuple):
    """What the steps learn from, by which collator and which loss."""

    batches: list[list[int]]
    rows: Dataset
    collator: Any
    loss: Callable[[SentenceTransformer], nn.Module]
    seen: dict[str, int]


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
    use, is_cpu = plan.device_use, PartialState().device.type == "cpu"
    threads = torch.get_num_threads() if is_cpu else 1
    features = partial(batch_format.features, pass_tokens=use.pass_tokens, threads=threads, num_passes=use.num_passes)
    steps = (_steps_of_texts if data.examples is None else _steps_of_pairs)(start, data, plan, work, features)
    model = SentenceTransformer(modules=[batch_format.module(start.model, start.manifest.pooling, use)])
    datasets_logging.disable_progress_bar()
    trainer = PackedTrainer(
        model=model,
        args=_arguments(plan, steps.batches, work, progress=progress),
        train_dataset=steps.rows,
        loss=steps.loss(model),
        data_collator=cast(Any, steps.collator),  # the trainer only calls it
        deterministic=plan.settings.deterministic,
    )
    trainer.remove_callback(PrinterCallback)
    return PreparedTraining(trainer, steps.seen)


def _steps_of_texts(
    start: StartingPoint, data: TrainingData, plan: Plan, work: Path, features: Callable[..., Features]
) -> _Steps:
    """Posts alone: each of a group is to be found by the mean of the others."""
    with PartialState().main_process_first():
        prompts = _prompts(start, data, work, plan.train_tokens)
    rows = TrainingRows(data)
    share_kept = 1 - plan.token_dropout
    lengths = np.array([math.ceil(share_kept * len(prompt)) for prompt in prompts])
    drawer = BatchDrawer(data, rows, lengths, plan.settings)
    batches = drawer.batches(plan.tokens, plan.seed)
    return _Steps(
        batches,
        Dataset.from_dict({"post": rows.post, "owner": rows.owner}),
        Collator(prompts, features, token_dropout=plan.token_dropout, seed=plan.seed),
        lambda model: LeaveOneOut(model, plan.settings, start.manifest.dimensions, data.owned),
        {"steps": len(batches), "tokens": drawer.num_tokens(batches), "posts": drawer.num_posts(batches)},
    )


def _steps_of_pairs(
    start: StartingPoint, data: TrainingData, plan: Plan, work: Path, features: Callable[..., Features]
) -> _Steps:
    """Members as they were before an action, and the posts that they acted on."""
    with PartialState().main_process_first():
        tokenizer_file = save_tokenizer(start.tokenizer, work)
    manifest = _cut_posts(start.manifest, plan.train_tokens)
    prompts = TrainingPrompts(manifest, tokenizer_file, 1 - plan.token_dropout)
    drawn = draw_pairs(data, prompts, plan.settings, plan.tokens, plan.seed)
    return _Steps(
        drawn.batches,
        Dataset.from_dict({"pair": np.arange(len(drawn.pairs))}),
        PairCollator(drawn.pairs, prompts.table.prompts, features, token_dropout=plan.token_dropout, seed=plan.seed),
        lambda model: PairLoss(model, plan.settings, start.manifest.dimensions, data.owned),
        {"steps": len(drawn.batches), "tokens": drawn.num_tokens, "posts": drawn.num_posts},
    )


def _prompts(start: StartingPoint, data: TrainingData, work: Path, limit: int) -> list[Prompt]:
    """The prompts of all posts and then of all parts of posts, cut to `limit` tokens. A text that cannot be encoded
    becomes an empty prompt."""
    manifest = start.manifest
    tokenizer = SafeTokenizer(save_tokenizer(start.tokenizer, work), manifest.special_tokens)
    prompts = Prompts(_cut_posts(manifest, limit), tokenizer)
    parts = [part for _, part in data.parts]
    queries = prompts.queries([part.text for part in parts])
    texts = prompts.texts([*data.texts, *(part.text for part in parts)])
    for number, (part, query) in enumerate(zip(parts, queries, strict=True), len(data.texts)):
        if part.is_query:
            texts[number] = query
    empty_text = [tokenizer.special["text"]]
    return [empty_text if isinstance(prompt, Unencodable) else prompt for prompt in texts]


def _cut_posts(manifest: Manifest, tokens: int) -> Manifest:
    """Of a longer text training sees the start."""
    limits = manifest.token_limits
    return replace(manifest, token_limits=replace(limits, post=min(tokens, limits.post)))


def _arguments(plan: Plan, batches: list[list[int]], work: Path, *, progress: bool) -> "_OneDevice":
    settings = plan.settings
    return _OneDevice(
        output_dir=str(work),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        batch_sampler=partial(FixedBatches, batches),
        learning_rate=plan.rates.rate,
        learning_rate_mapping={"embed_tokens": plan.rates.embedding_rate},
        weight_decay=settings.weight_decay,
        adam_beta2=0.98,  # batches differ in their era; a longer memory would hold the gradients of past eras
        optim="adamw_torch_fused",
        max_grad_norm=_MAX_GRADIENT_NORM,
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
        bf16=is_sharded() and plan.device_use.precision == "bf16",  # so that shards travel in bf16, as they are used
    )


class _OneDevice(SentenceTransformerTrainingArguments):
    """A process trains on one device. Where a machine has several, transformers would copy the model to all of them in
    each step (DataParallel), unless `accelerate launch` starts a process for each."""

    @property
    def n_gpu(self) -> int:
        return min(1, int(super().n_gpu))


class PackedTrainer(SentenceTransformerTrainer):
    def __init__(self, *, deterministic: bool, **options: Any) -> None:
        super().__init__(**options)
        self._deterministic = deterministic

    def train(self, *arguments: Any, **options: Any) -> Any:
        with reproducible(self.args.device, wanted=self._deterministic):
            return super().train(*arguments, **options)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Writes no model card: a package says in nearline.json what it was trained on."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the weights alone: a checkpoint is there to resume from, not to be used as a model. Weights that are
        divided among devices are saved elsewhere, together with the optimizer's memory."""
        assert isinstance(self.model, SentenceTransformer)
        if not self.is_fsdp_enabled:
            self.model.save_pretrained(str(output_dir or self.args.output_dir), create_model_card=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert isinstance(self.model, SentenceTransformer)
        if self.is_fsdp_enabled:
            # Not sentence-transformers' own way, which would read a whole model.
            Trainer._load_from_checkpoint(self, resume_from_checkpoint, model)
        else:
            cast(PackedLlama, self.model[0]).restore(Path(resume_from_checkpoint))

    def finish(self) -> dict[str, Tensor] | None:
        """Gives the device's memory back; called by all processes. The weights that have learned, by their names in the
        model, where they were divided among devices: in the first process, with nothing in the others. None where each
        device had all: then the model has them."""
        if self.args.device.type == "cpu" and not self.is_fsdp_enabled:
            return None
        learned: dict[str, Tensor] | None = None
        if self.is_fsdp_enabled:
            whole = self.accelerator.get_state_dict(self.model)
            learned = {name.removeprefix(_OF_MODEL): weight for name, weight in whole.items()}
        else:
            self.model.zero_grad()
            self.model.to("cpu")
        self.optimizer = self.lr_scheduler = self.callback_handler.optimizer = None
        self.accelerator.free_memory()
        return learned
