"""The model as sentence-transformers trains it: packed texts in, one vector each out.

No text is padded: the texts of a batch lie one after the other, in as many forward passes as suit the device. On a CPU
the passes run in parallel (`parallel_passes`). The layers are transformers' own, with the encoder's packed attention.
In bf16 they run under autocast over weights in fp32. With cached gradients (GradCache, Gao et al. 2021) a pass keeps
nothing but its vectors, and is computed again when the loss of the whole batch has given them gradients.
The encoder fuses the steps of the same layers (`encoders.model.layers`), for inference alone: with gradients the fused
steps took an eighth longer. Owns how texts become passes and passes become vectors. Knows no loss.

Shapes: T tokens, B texts, H the model's size.
"""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.model.attention import ATTENTION, Packing, host_starts
from encoders.model.loading import build_model
from encoders.model.pooling import pool
from encoders.package.manifest import PoolingMode
from encoders.package.model_package import WEIGHTS_FILE
from encoders.prompt.prompts import Prompt
from trainer.device_use import IN_FP32, DeviceUse
from trainer.model.parallel_passes import ParallelPasses

Features = dict[str, Any]

_UNUSED_PASS: Final[Prompt] = [0]

_AGAIN: Final[dict[str, Any]] = {"use_reentrant": False, "preserve_rng_state": False}
"""How torch computes something again for its gradients. Nothing in the model is random."""


class PackedLlama(Module):
    """The only module of the model that is trained. A package gets stock modules' files when it is written."""

    config_keys: list[str] = ["pooling"]  # noqa: RUF012 - as the library declares it
    config_file_name = "packed_llama.json"
    save_in_root = True

    def __init__(self, llama: LlamaModel, pooling: PoolingMode = "mean", use: DeviceUse = IN_FP32) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.llama = llama
        self.pooling: PoolingMode = pooling
        self._use = use
        if use.gradient_checkpointing:
            llama.gradient_checkpointing_enable(_AGAIN)

    def forward(self, features: Features, **_: Any) -> Features:
        """`features` are those of `pack_features`. Adds `sentence_embedding`, (B, H), not normalised."""
        columns = (features[name] for name in ("input_ids", "position_ids", "lengths", "starts"))
        inputs = zip(*columns, strict=True)
        run_pass = partial(checkpoint, self._run_pass, **_AGAIN) if self._use.cached_gradients else self._run_pass
        passes = [partial(run_pass, *of_pass) for of_pass in inputs]
        if self._parallel is None:
            with self._autocast():  # here too, so that weights are cast once for all passes
                pooled_BH = torch.cat([one_pass() for one_pass in passes])
        else:
            pooled_BH = self._parallel(passes, [*self._learning().values()])
        features["sentence_embedding"] = pooled_BH[features["order"]]
        return features

    @cached_property
    def _parallel(self) -> ParallelPasses | None:
        """Made when the first batch comes: only then is the model on its device. None on a GPU, and in one thread."""
        threads = torch.get_num_threads()
        return ParallelPasses(threads) if self.llama.device.type == "cpu" and threads > 1 else None

    def _run_pass(self, ids_T: Tensor, positions_T: Tensor, lengths: list[int], starts: Tensor) -> Tensor:
        packing = Packing(lengths, ids_T.device, starts=starts)
        with self._autocast():
            hidden_1TH = self.llama(
                input_ids=ids_T.unsqueeze(0), position_ids=positions_T.unsqueeze(0), use_cache=False, packing=packing
            ).last_hidden_state
        return pool(hidden_1TH[0], packing, self.pooling)

    def _autocast(self) -> torch.autocast:
        """Of this thread. Threads would clear each other's cast weights, so they keep none."""
        kind, is_half = self.llama.device.type, self._use.precision == "bf16"
        return torch.autocast(kind, torch.bfloat16, enabled=is_half, cache_enabled=self._parallel is None)

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


def pack_features(
    prompts: Sequence[Prompt], pass_tokens: int = 2_048, threads: int = 1, num_passes: int | None = None
) -> Features:
    """Divides texts into passes of about equal size, of about `pass_tokens` at most, the same number for each thread.

    Longest first, with texts of equal length side by side; `order` says where each text's vector will be. All are
    tensors or lengths, so that the trainer copies what the device needs in good time. `num_passes`: so many, whatever
    the texts; where they are too few or too long for that, the rest are passes of one token, whose vector nobody uses.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    longest_first = np.argsort(-lengths, kind="stable")
    total = int(lengths.sum())
    divided_by = num_passes or threads * math.ceil(total / pass_tokens / threads)
    starts = np.cumsum(lengths[longest_first]) - lengths[longest_first]
    pass_of = starts * divided_by // total
    passes = np.split(longest_first, np.flatnonzero(np.diff(pass_of)) + 1)
    order = np.empty(len(prompts), dtype=np.int64)
    order[longest_first] = np.arange(len(prompts))
    unused = [_UNUSED_PASS] * ((num_passes or 0) - len(passes))
    pass_lengths = [lengths[rows].tolist() for rows in passes] + [[len(prompt)] for prompt in unused]
    return {
        "input_ids": [_tensor([prompts[row] for row in rows]) for rows in passes] + [_tensor([p]) for p in unused],
        "position_ids": [_tensor([np.arange(length) for length in of_pass]) for of_pass in pass_lengths],
        "lengths": pass_lengths,
        "starts": [torch.from_numpy(host_starts(of_pass, 0)) for of_pass in pass_lengths],
        "order": torch.from_numpy(order),
    }


def _tensor(numbers: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(numbers).astype(np.int64))
