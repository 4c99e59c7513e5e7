"""Tiny model packages for tests: random weights of a real LLaMA layout, a real byte-level tokenizer."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from msgspec import UNSET, UnsetType
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.package.manifest import (
    BaseModel,
    Manifest,
    MeanForm,
    MemberForm,
    MemberVectorsForm,
    PoolingMode,
    PostTemplate,
    Precision,
    Templates,
    TokenLimits,
    default_special_tokens,
    number_fields,
)
from encoders.package.model_package import ModelPackage
from encoders.package_writer import write_package

WORDS = (
    "the build of the network card failed again after the last patch",
    "how to bake bread with a sourdough starter and a hot oven",
    "a long walk in the mountains in the morning fog",
    "training a small language model on two processor cores",
)


def tiny_tokenizer(special_tokens: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE like LLaMA-3's, with about 400 words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(WORDS * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": special_tokens})
    return fast


def tiny_model(vocab_size: int, hidden: int, layers: int, seed: int, **config: Any) -> LlamaModel:
    sizes: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaModel(
            LlamaConfig(vocab_size=vocab_size, hidden_size=hidden, num_hidden_layers=layers, **{**sizes, **config})
        ).eval()


class FailsOn:
    """A model that fails on this token, after it has done all the work of the batch."""

    def __init__(self, model: LlamaModel, token: int) -> None:
        self._model = model
        self._token = token

    def __call__(self, **inputs: Any) -> Any:
        outputs = self._model(**inputs)
        if (inputs["input_ids"] == self._token).any():
            raise ValueError("poison")
        return outputs


def make_tiny_package(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    seed: int = 0,
    dimension: int | None = None,
    pooling: PoolingMode = "mean",
    precision: Precision = "fp32",
    member_form: MemberForm | None = None,
    templates: Templates | None = None,
    token_limits: TokenLimits | None = None,
    training: dict[str, Any] | None = None,
    member_vectors: MemberVectorsForm | UnsetType = UNSET,
    **config: Any,
) -> ModelPackage:
    """Its vectors have `dimension` numbers, by default `hidden`. Its form of members is `mean` by default."""
    templates = templates or Templates(PostTemplate())
    form = member_form or MeanForm()
    special_tokens = default_special_tokens(templates, form)
    tokenizer = tiny_tokenizer(list(special_tokens.values()))
    dimension = dimension or hidden
    manifest = Manifest(
        id="tiny",
        base_model=BaseModel("random"),
        templates=templates,
        special_tokens=special_tokens,
        quantiles={name: [float(number) for number in range(1, 100)] for name in number_fields(templates)},
        pooling=pooling,
        dimensions=tuple(sorted({dimension, hidden})),
        dimension=dimension,
        token_limits=token_limits or TokenLimits(post=128, member=256),
        precision=precision,
        member_form=form,
        member_vectors=member_vectors,
        training=training or {},
    )
    return write_package(folder, manifest, tiny_model(len(tokenizer), hidden, layers, seed, **config), tokenizer)


def poison(folder: Path) -> bytes:
    """A pickle that torch would load, and that makes this folder when it is loaded."""
    return pickle.dumps(_Poison(str(folder)), protocol=2)


class _Poison:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self._path,)
