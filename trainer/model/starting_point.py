"""What a training begins with: model, tokenizer and what the package will say, from nothing or from a package."""

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
from encoders.model.packed_model import read_config
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


class Beginning(NamedTuple):
    model: LlamaModel
    tokenizer: PreTrainedTokenizerFast
    manifest: Manifest
    """Without what training adds."""
    trained: Callable[[], LlamaModel]
    """The model to write, once training has ended."""


def from_nothing(texts: Sequence[str], settings: TrainSettings, package_id: str, seed: int, work: Path) -> Beginning:
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
    return Beginning(model, tokenizer, manifest, lambda: model)


def from_package(folder: Path, settings: TrainSettings, package_id: str, seed: int, work: Path) -> Beginning:
    """A package, or a Hugging Face LLaMA folder that becomes one first. Raises PackageError and BadStart."""
    if not (folder / MANIFEST_FILE).exists():
        made = work / "base"  # there already when a training goes on
        if not made.exists():
            create_package(folder, made, Recipe(id="base", pooling=settings.pooling, member_form=MeanForm()))
        folder = made
    package = ModelPackage.load(folder)
    if not isinstance(package.member_form, MeanForm):
        raise BadStart(f"{folder} has the member form prompt; training knows the form mean alone, give such a package")
    manifest = package.manifest
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = trainable(read_config(folder), load_file(folder / WEIGHTS_FILE))
    base = BaseModel(manifest.id, manifest.files[WEIGHTS_FILE])
    tokens = [tokenizer.get_vocab()[token] for token in manifest.special_tokens.values()]
    return Beginning(
        model,
        tokenizer,
        replace(manifest, id=package_id, base_model=base, training={}, files={}, goldens=[]),
        _adapted(model, settings.lora_rank, tokens, seed) if settings.lora_rank else lambda: model,
    )


def _adapted(model: LlamaModel, rank: int, tokens: Sequence[int], seed: int) -> Callable[[], LlamaModel]:
    return partial(merge, with_adapters(model, rank, tokens, seed))
