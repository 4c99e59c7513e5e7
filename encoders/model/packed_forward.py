"""One batch of prompts through the model: prompts in, vectors on the device out.

Owns what a batch needs on the device, and the prefix that prompts share. Knows neither budgets, threads nor failures.

Shapes: T tokens of a packed batch, B prompts, H the model's size, D the dimension that vectors are cut to, P tokens of
a prefix. In `matrix_rows`, `spare_rows` and the argument `rows` of `Packing` a row is one token of a packed batch.
"""

import itertools
from collections.abc import Sequence
from threading import Lock
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.errors import EncodingFailed
from encoders.model.attention import (
    FLASH,
    ONE_SPLIT,
    NumSplits,
    Packing,
    host_starts,
    prefix_tokens,
    takes_num_splits,
    uses_varlen,
)
from encoders.model.fused_linear import matrix_rows
from encoders.model.host_copies import host_copies
from encoders.model.llama import LlamaModel
from encoders.model.loading import DTYPES
from encoders.model.pooling import SharedPrefix, pool
from encoders.package.manifest import Manifest
from encoders.prompt.prompts import Prompt

_MIN_PREFIX_TOKENS: Final = 8
"""A shorter prefix is not shared. Sharing means combining two softmaxes, which costs about as much as computing this
many tokens again."""


class PackedForward:
    """On a GPU one thread calls it at a time, and it returns before the device has done the work. Raises EncodingFailed
    if this torch does not know how to split keys as `num_splits` says."""

    def __init__(
        self, model: LlamaModel, manifest: Manifest, device: torch.device, num_splits: NumSplits = FLASH
    ) -> None:
        self.model = model
        self._device = device
        self._num_splits = num_splits
        self._dtype = DTYPES[manifest.precision]
        self._pooling = manifest.pooling
        self._dimension = manifest.dimension
        self._can_share_prefixes = device.type == "cpu" or uses_varlen(device, self._dtype)
        if num_splits == ONE_SPLIT and uses_varlen(device, self._dtype) and not takes_num_splits():
            raise EncodingFailed("attention = invariant needs torch 2.12 on a GPU; install it, or set flash")
        self._copies = host_copies(device)
        self._shared_prefixes: dict[tuple[int, ...], SharedPrefix] = {}
        self._lock = Lock()
        """Guards the shared prefixes."""

    @torch.inference_mode()
    def vectors(self, prompts: Sequence[Prompt], shared: SharedPrefix | None) -> Tensor:
        """B prompts, longest first -> (B, D), of length one, on the device. With `shared` they all go on after it."""
        skip = shared.num_tokens if shared else 0
        with self._copies.batch():
            packing, hidden_TH = self._hidden([prompt[skip:] for prompt in prompts], shared)
            pooled_BH = pool(hidden_TH, packing, self._pooling, shared)
            return F.normalize(pooled_BH[:, : self._dimension], dim=-1)

    def matrix_rows(self, num_tokens: int) -> int:
        return matrix_rows(num_tokens, self._device, self._dtype)

    def can_share(self, prefix: Prompt) -> bool:
        """False if it is too short to save time, or if the device cannot."""
        return len(prefix) >= _MIN_PREFIX_TOKENS and self._can_share_prefixes

    @torch.inference_mode()
    def shared_prefix(self, prefix: Prompt) -> SharedPrefix:
        with self._lock:
            shared = self._shared_prefixes.get(tuple(prefix))
            if shared is None:
                with self._copies.batch():
                    packing, hidden_PH = self._hidden([prefix], keep_kv=True)
                    shared = SharedPrefix(len(prefix), packing.kept_kv or [], hidden_PH.sum(0, dtype=torch.float32))
                self._shared_prefixes[tuple(prefix)] = shared
        return shared

    def _hidden(
        self, prompts: Sequence[Prompt], shared: SharedPrefix | None = None, *, keep_kv: bool = False
    ) -> tuple[Packing, Tensor]:
        """The model's last hidden states, (T, H), for prompts that go on after `shared`."""
        lengths = [len(prompt) for prompt in prompts]
        num_tokens, kv_cache = sum(lengths), shared.kv_cache if shared else None
        # What keeps keys and values keeps those of its own tokens alone.
        rows = num_tokens if keep_kv else self.matrix_rows(num_tokens)
        ids_T = np.fromiter(itertools.chain.from_iterable(prompts), dtype=np.int32, count=num_tokens)
        first_T = np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions_T = np.arange(num_tokens) - first_T + prefix_tokens(kv_cache)
        ids_and_positions = (np.pad(numbers_T, (0, rows - num_tokens)) for numbers_T in (ids_T, positions_T))
        starts = host_starts(lengths, prefix_tokens(kv_cache), rows)
        numbers = self._copies.copied(np.concatenate([*ids_and_positions, starts], dtype=np.int32))
        ids, positions, on_device = torch.split(numbers, [rows, rows, len(starts)])
        packing = Packing(
            lengths,
            self._device,
            rows=rows,
            prefix=kv_cache,
            keep_kv=keep_kv,
            num_splits=self._num_splits,
            starts=on_device,
        )
        hidden_1TH: Tensor = self.model(
            input_ids=ids.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, packing=packing
        ).last_hidden_state
        return packing, hidden_1TH[0]
