"""Makes a model package from a Hugging Face LLaMA-3 folder that was never trained for nearline.

Adds the special tokens and an embedding for each of them. Reads safetensors, one file or several, and never a pickle.
Owns what is taken from such a folder; `package_writer` writes the package. Shapes: V tokens, H the model's size.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from msgspec import UNSET, Struct, UnsetType
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from encoders.errors import BadPackage
from encoders.model.llama import LlamaConfig
from encoders.model.loading import build_model, read_config, read_weights
from encoders.package.manifest import (
    BaseModel,
    Manifest,
    MemberForm,
    MemberVectorsForm,
    PoolingMode,
    Precision,
    PromptForm,
    Templates,
    TokenLimits,
    default_special_tokens,
)
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage, file_digest
from encoders.package_writer import write_package

_INDEX_FILE: Final = "model.safetensors.index.json"
_EMBEDDINGS: Final = "embed_tokens.weight"
_PADS: Final = ("<|finetune_right_pad_id|>", "<|nearline:pad|>")
"""The padding token is the first of these that the tokenizer has (LLaMA-3.1 brings one), or else the last is added."""


class Recipe(Struct, frozen=True):
    """What the folder does not say itself. None: taken from the folder."""

    id: str
    templates: Templates = Templates()
    quantiles: dict[str, list[float]] = {}
    pooling: PoolingMode = "last"
    """`last` suits a model that was trained to predict the next word."""
    dimension: int | None = None
    """The dimension that vectors are cut to; None: the model's size."""
    token_limits: TokenLimits = TokenLimits()
    precision: Precision | None = None
    member_form: MemberForm = PromptForm()
    member_vectors: MemberVectorsForm | UnsetType = UNSET


def create_package(source: Path, folder: Path, recipe: Recipe) -> ModelPackage:
    """Writes the package to `folder`, which must not exist yet. Raises PackageError."""
    config = read_config(source)
    tokenizer = _read_tokenizer(source)
    shards = _weight_files(source)
    weights = _read_weights(source, shards)
    special_tokens = default_special_tokens(recipe.templates, recipe.member_form)
    _add_tokens(tokenizer, weights, config, list(special_tokens.values()))
    sizes = {recipe.dimension or config.hidden_size, config.hidden_size}
    manifest = Manifest(
        id=recipe.id,
        base_model=BaseModel(source.resolve().name, _digest(source, shards)),
        templates=recipe.templates,
        special_tokens=special_tokens,
        quantiles=recipe.quantiles,
        pooling=recipe.pooling,
        dimensions=tuple(sorted(sizes)),
        dimension=min(sizes),
        token_limits=recipe.token_limits,
        precision=recipe.precision or ("fp32" if weights[_EMBEDDINGS].dtype == torch.float32 else "bf16"),
        member_form=recipe.member_form,
        member_vectors=recipe.member_vectors,
    )
    return write_package(folder, manifest, build_model(config, weights, torch.device("cpu")), tokenizer)


def _read_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
            source, local_files_only=True, trust_remote_code=False
        )
        return tokenizer
    except Exception as error:  # the library raises many kinds of errors
        raise BadPackage(f"{source} holds no readable tokenizer.json: {error}") from error


def _weight_files(source: Path) -> list[str]:
    """The single file, or the files that the index names, all directly in the folder. A file may be a link: in Hugging
    Face's own cache every file is one."""
    if (source / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    try:
        names = sorted(set(json.loads((source / _INDEX_FILE).read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise BadPackage(f"{source} holds neither {WEIGHTS_FILE} nor a readable {_INDEX_FILE}") from error
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith(".safetensors")
            or not (source / name).is_file()
        ):
            raise BadPackage(f"{source}: {_INDEX_FILE} names {name!r}, which is no safetensors file of this folder")
    return names


def _read_weights(source: Path, shards: Sequence[str]) -> dict[str, Tensor]:
    """The weights without the language model's head: nearline predicts no words."""
    weights: dict[str, Tensor] = {}
    cpu = torch.device("cpu")
    for shard in shards:
        weights |= {name.removeprefix("model."): weight for name, weight in read_weights(source / shard, cpu).items()}
    weights.pop("lm_head.weight", None)
    if _EMBEDDINGS not in weights:
        raise BadPackage(f"{source}: the weights hold no {_EMBEDDINGS}; only LLaMA models are read")
    return weights


def _add_tokens(
    tokenizer: PreTrainedTokenizerFast, weights: dict[str, Tensor], config: LlamaConfig, special_tokens: list[str]
) -> None:
    """Also changes `weights` and `config`. The embedding of a new token is the mean of all embeddings plus a little
    noise, always the same, so that no two new tokens are alike."""
    num_known = len(tokenizer)
    if tokenizer.pad_token is None:
        pad_token = next((token for token in _PADS if token in tokenizer.get_vocab()), _PADS[-1])
        tokenizer.add_special_tokens({"pad_token": pad_token})
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens}, replace_extra_special_tokens=False)
    old_VH = weights[_EMBEDDINGS]
    num_tokens = max(len(tokenizer), old_VH.shape[0])
    mean_H, spread_H = old_VH.float().mean(0), old_VH.float().std(0)
    noise_VH = torch.randn(num_tokens, old_VH.shape[1], generator=torch.Generator().manual_seed(0))
    new_VH = (mean_H + 0.1 * spread_H * noise_VH).to(old_VH.dtype)
    num_old = min(num_known, old_VH.shape[0])
    new_VH[:num_old] = old_VH[:num_old]
    weights[_EMBEDDINGS] = new_VH
    config.vocab_size = num_tokens
    config.pad_token_id = None  # otherwise transformers would set the padding token's embedding to zero


def _digest(source: Path, shards: Sequence[str]) -> str:
    """The SHA-256 of the lines that sha256sum prints for the weight files: `digest  name`."""
    lines = "".join(f"{file_digest(source / shard)}  {shard}\n" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()
