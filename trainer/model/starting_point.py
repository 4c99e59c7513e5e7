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
    PostTemplate,
    Templates,
    TokenLimits,
    default_special_tokens,
)
from encoders.package.model_package import TOKENIZER_FILE, WEIGHTS_FILE, ModelPackage
from encoders.prompt.prompts import Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from trainer.errors import BadStart
from trainer.model.lora import merge, with_adapters
from trainer.model.lsi_initialization import new_model
from trainer.model.packed_llama import trainable
from trainer.model.tokenizer import train_tokenizer
from trainer.settings import TrainSettings


class StartingPoint(NamedTuple):
    model: LlamaModel
    tokenizer: PreTrainedTokenizerFast
    manifest: Manifest
    """Without what training adds."""
    trained_model: Callable[[], LlamaModel]
    """Called after the last step; returns the model to write, with adapters merged."""


def from_scratch(
    texts: Sequence[str], settings: TrainSettings, package_id: str, seed: int, work: Path
) -> StartingPoint:
    templates, form = Templates(PostTemplate(("text",))), MeanForm()
    special_tokens = default_special_tokens(templates, form)
    tokenizer = train_tokenizer(texts, settings.vocabulary, list(special_tokens.values()))
    manifest = Manifest(
        id=package_id,
        base_model=BaseModel("none"),
        templates=templates,
        special_tokens=special_tokens,
        dimensions=settings.dimensions,
        dimension=max(settings.dimensions),
        token_limits=TokenLimits(post=settings.post_tokens, member=settings.post_tokens),
        pooling=settings.pooling,
        member_form=form,
    )
    tokenizer.save_pretrained(str(work / "tokenizer"))
    safe = SafeTokenizer(work / "tokenizer" / TOKENIZER_FILE, special_tokens)
    prompts = [prompt for prompt in Prompts(manifest, safe).texts(texts) if not isinstance(prompt, Unencodable)]
    model = new_model(settings, len(tokenizer), prompts, seed)
    return StartingPoint(model, tokenizer, manifest, lambda: model)


def from_package(folder: Path, settings: TrainSettings, package_id: str, seed: int, work: Path) -> StartingPoint:
    """`folder`: a package, or a Hugging Face LLaMA folder, which is made a package in `work` first. Raises PackageError
    and BadStart."""
    if not (folder / MANIFEST_FILE).exists():
        base_folder = work / "base"  # exists already when a training is resumed
        if not base_folder.exists():
            create_package(folder, base_folder, Recipe(id="base", pooling=settings.pooling, member_form=MeanForm()))
        folder = base_folder
    package = ModelPackage.load(folder)
    if not isinstance(package.member_form, MeanForm):
        raise BadStart(f"{folder} has the member form prompt; training knows the form mean alone, give such a package")
    manifest = package.manifest
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = trainable(read_config(folder), load_file(folder / WEIGHTS_FILE))
    base = BaseModel(manifest.id, manifest.files[WEIGHTS_FILE])
    tokens = [tokenizer.get_vocab()[token] for token in manifest.special_tokens.values()]
    return StartingPoint(
        model,
        tokenizer,
        replace(manifest, id=package_id, base_model=base, training={}, files={}, goldens=[]),
        _adapted(model, settings.lora_rank, tokens, seed) if settings.lora_rank else lambda: model,
    )


def _adapted(model: LlamaModel, rank: int, tokens: Sequence[int], seed: int) -> Callable[[], LlamaModel]:
    return partial(merge, with_adapters(model, rank, tokens, seed))
