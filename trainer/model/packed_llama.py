"""The model as sentence-transformers trains it: packed texts in, one vector each out.

No text is padded: the texts of a batch lie one after the other, in as many forward passes as suit the caches. On a CPU
the passes run in parallel (`parallel_passes`); elsewhere the layers are transformers' own with the encoder's packed
attention. Owns how texts become passes and passes become vectors. Knows no loss.

Shapes: T tokens, B texts, H the model's size.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.model.attention import ATTENTION, Packing
from encoders.model.loading import build_model
from encoders.model.packed_model import pool
from encoders.package.manifest import PoolingMode
from encoders.package.model_package import WEIGHTS_FILE
from encoders.prompt.prompts import Prompt
from trainer.model.parallel_passes import ParallelPasses, parallel_passes

Features = dict[str, Any]


class PackedLlama(Module):
    """The only module of the model that is trained. A package gets stock modules' files when it is written."""

    config_keys: list[str] = ["pooling"]  # noqa: RUF012 - as the library declares it
    config_file_name = "packed_llama.json"
    save_in_root = True

    def __init__(self, llama: LlamaModel, pooling: PoolingMode = "mean") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.llama = llama
        self.pooling: PoolingMode = pooling

    def forward(self, features: Features, **_: Any) -> Features:
        """`features` are those of `pack_features`. Adds `sentence_embedding`, (B, H), not normalised."""
        if self._parallel is None or not self._parallel.fit(features["lengths"]):
            passes = zip(features["input_ids"], features["position_ids"], features["lengths"], strict=True)
            pooled_BH = torch.cat([self._run_pass(*one_pass) for one_pass in passes])
        else:
            embedded_TH = self.llama.embed_tokens(torch.cat(features["input_ids"]))
            hidden_TH = self._parallel(embedded_TH, features["lengths"])
            packing = Packing([*chain.from_iterable(features["lengths"])], hidden_TH.device)
            pooled_BH = pool(hidden_TH, packing, self.pooling)
        features["sentence_embedding"] = pooled_BH[features["order"]]
        return features

    @cached_property
    def _parallel(self) -> ParallelPasses | None:
        """Made when the first batch comes: only then is the model on its device."""
        return parallel_passes(self.llama)

    def _run_pass(self, ids_T: Tensor, positions_T: Tensor, lengths: list[int]) -> Tensor:
        packing = Packing(lengths, ids_T.device)
        hidden_1TH = self.llama(
            input_ids=ids_T.unsqueeze(0), position_ids=positions_T.unsqueeze(0), use_cache=False, packing=packing
        ).last_hidden_state
        return pool(hidden_1TH[0], packing, self.pooling)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Saves the weights that learn: all of them, or the adapters alone."""
        self.save_config(output_path)
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self._learning().items()}
        save_file(weights, Path(output_path) / WEIGHTS_FILE)

    def restore(self, folder: Path) -> None:
        """Loads what `save` wrote into a model with the same starting point."""
        learning = self._learning()
        with torch.no_grad():
            for name, weight in load_file(folder / WEIGHTS_FILE).items():
                learning[name].copy_(weight)

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.llama.named_parameters() if weight.requires_grad}


def trainable(config: LlamaConfig, weights: dict[str, Tensor]) -> LlamaModel:
    """A model in float32, whatever precision the weights have."""
    config._attn_implementation = ATTENTION
    model = build_model(config, {name: weight.float() for name, weight in weights.items()}, torch.device("cpu"))
    model.requires_grad_(True)
    return model


def pack_features(prompts: Sequence[Prompt], pass_tokens: int = 2_048, threads: int = 1) -> Features:
    """Divides texts into passes of about equal size, of about `pass_tokens` at most, the same number for each thread.

    Longest first, with texts of equal length side by side; `order` says where each text's vector will be.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    longest_first = np.argsort(-lengths, kind="stable")
    total = int(lengths.sum())
    num_passes = threads * math.ceil(total / pass_tokens / threads)
    starts = np.cumsum(lengths[longest_first]) - lengths[longest_first]
    pass_of = starts * num_passes // total
    passes = np.split(longest_first, np.flatnonzero(np.diff(pass_of)) + 1)
    order = np.empty(len(prompts), dtype=np.int64)
    order[longest_first] = np.arange(len(prompts))
    pass_lengths = [lengths[rows].tolist() for rows in passes]
    return {
        "input_ids": [_tensor([prompts[row] for row in rows]) for rows in passes],
        "position_ids": [_tensor([np.arange(length) for length in of_pass]) for of_pass in pass_lengths],
        "lengths": pass_lengths,
        "order": torch.from_numpy(order),
    }


def _tensor(numbers: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(numbers).astype(np.int64))
