"""The starting point of a training: model, tokenizer and manifest, made from scratch or read from a package.

Owns what is taken from a package and what a new package says before training. Knows nothing of batches or steps.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import Unencodable
from encoders.from_hugging_face import Recipe, create_package
from encoders.model.loading import read_config
from encoders.package.manifest import (
    MANIFEST_FILE,
    BaseModel,
    Manifest,
    MeanForm,
    TokenLimits,
    default_special_tokens,
    number_fields,
)
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from trainer.data.dataset import TrainingData
from trainer.model.lora import merge, with_adapters
from trainer.model.lsi_initialization import new_model
from trainer.model.packed_llama import trainable
from trainer.model.tokenizer import percentile_words, save_tokenizer, train_tokenizer
from trainer.plan import Plan


class StartingPoint(NamedTuple):
    model: LlamaModel
    tokenizer: PreTrainedTokenizerFast
    manifest: Manifest
    """Without what training adds."""
    trained_model: Callable[[], LlamaModel]
    """Called after the last step; returns the model to write, with adapters merged."""


def from_scratch(data: TrainingData, plan: Plan, work: Path) -> StartingPoint:
    settings, (templates, form) = plan.settings, plan.prompts
    special_tokens = default_special_tokens(templates, form)
    words = data.texts if data.examples is None else [*data.texts, *data.examples.profiles]
    if number_fields(templates):
        words = [*words, *percentile_words()]
    tokenizer = train_tokenizer(words, settings.vocabulary, list(special_tokens.values()))
    member_tokens = settings.post_tokens if isinstance(form, MeanForm) else settings.member_tokens
    manifest = Manifest(
        id=plan.package_id,
        base_model=BaseModel("none"),
        templates=templates,
        special_tokens=special_tokens,
        quantiles=data.tables,
        dimensions=settings.dimensions,
        dimension=max(settings.dimensions),
        token_limits=TokenLimits(post=settings.post_tokens, member=member_tokens),
        pooling=settings.pooling,
        member_form=form,
        member_vectors=plan.member_vectors,
    )
    prompts = _whole_prompts(data, manifest, SafeTokenizer(save_tokenizer(tokenizer, work), special_tokens))
    longest = max(settings.post_tokens, member_tokens)
    model = new_model(settings, len(tokenizer), prompts, plan.seed, longest=longest)
    return StartingPoint(model, tokenizer, manifest, lambda: model)


def _whole_prompts(data: TrainingData, manifest: Manifest, tokenizer: SafeTokenizer) -> list[Prompt]:
    """Of each post its prompt, with the counts that it had last: so a token that most prompts hold, such as a frequent
    percentile, begins as one that means little."""
    prompts = Prompts(manifest, tokenizer)
    if data.examples is None:
        rendered = prompts.texts(data.texts)
    else:
        rendered = prompts.posts([data.examples.post_contexts[number] for number in range(len(data.texts))])
    return [prompt for prompt in rendered if not isinstance(prompt, Unencodable)]


def from_package(folder: Path, data: TrainingData, plan: Plan, work: Path) -> StartingPoint:
    """`folder`: a package, or a Hugging Face LLaMA folder, which is made a package in `work` first. Raises PackageError
    and BadStart."""
    settings = plan.settings
    if not (folder / MANIFEST_FILE).exists():
        base_folder = work / "base"  # exists already when a training is resumed
        if not base_folder.exists():
            templates, form = plan.prompts
            limits = TokenLimits() if isinstance(form, MeanForm) else TokenLimits(member=settings.member_tokens)
            recipe = Recipe("base", templates, data.tables, settings.pooling, token_limits=limits, member_form=form)
            create_package(folder, base_folder, recipe)
        folder = base_folder
    package = ModelPackage.load(folder)
    manifest = package.manifest
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = trainable(read_config(folder), load_file(folder / WEIGHTS_FILE))
    base = BaseModel(manifest.id, manifest.files[WEIGHTS_FILE])
    tokens = [tokenizer.get_vocab()[token] for token in manifest.special_tokens.values()]
    tables = manifest.quantiles | data.tables
    rank = settings.lora_rank
    return StartingPoint(
        model,
        tokenizer,
        replace(
            manifest,
            id=plan.package_id,
            base_model=base,
            quantiles=tables,
            member_vectors=plan.member_vectors,
            training={},
            files={},
            goldens=[],
        ),
        _adapted(model, rank, tokens, plan.seed) if rank else lambda: model,
    )


def _adapted(model: LlamaModel, rank: int, tokens: Sequence[int], seed: int) -> Callable[[], LlamaModel]:
    return partial(merge, with_adapters(model, rank, tokens, seed))
