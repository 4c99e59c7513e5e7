"""Runs a package's LLaMA on a device: prompts in, vectors out.

Owns the token budget, the batches and threads of a run, what happens when memory runs out, and the prefix that prompts
share. Knows nothing of contexts or of a prompt's fields; `loading` makes the model.

Shapes: T tokens of a packed batch, B prompts, H the model's size, D the dimension that vectors are cut to, P tokens of
a prefix.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import EncodingFailed, Unencodable
from encoders.model.attention import KVCache, Packing, uses_varlen
from encoders.model.fused_linear import matrix_rows
from encoders.model.loading import DTYPES
from encoders.model.packing import pack
from encoders.package.manifest import Manifest, PoolingMode
from encoders.prompt.prompts import Prompt
from schemas.embeddings import Vector

_CPU_BATCH_TOKENS: Final = {torch.float32: 1024, torch.bfloat16: 2048}
"""A larger batch is slower on a CPU: its activations leave the caches. Those of bf16 are half as large."""

_MIN_PREFIX_TOKENS: Final = 8
"""A shorter prefix is not shared: combining two softmaxes costs about as much as computing so many tokens."""


@dataclass
class ModelStats:
    """Counters since the start, for metrics. No prompt is ever padded."""

    prompts: int = 0
    tokens: int = 0
    batches: int = 0
    budget_tokens: int = 0
    """What all batches together could have held; tokens / budget_tokens is the fill."""
    spare_rows: int = 0
    """Rows of the batches' matrices that hold no token; see `matrix_rows`."""
    device_s: float = 0.0
    """On a CPU this is the time of all threads, divided by their number."""
    halvings: int = 0
    """How often the budget was halved because memory ran out."""


class Run(NamedTuple):
    """`device_s`: how long it kept the device."""

    vectors: list[Vector | Unencodable]
    device_s: float


class SharedPrefix(NamedTuple):
    """The tokens that all prompts of a run begin with, computed once."""

    num_tokens: int
    kv_cache: KVCache
    sum_H: Tensor
    """What its tokens add to a prompt's mean."""


@dataclass
class _Call:
    """The work of one call of `run`. Each of its threads writes other rows."""

    prompts: Sequence[Prompt]
    shared: SharedPrefix | None
    vectors_BD: Tensor
    refused: dict[int, Unencodable] = field(default_factory=dict)
    batches_s: list[float] = field(default_factory=list)

    def num_tokens(self, row: int) -> int:
        """Those that are still to be computed: without a shared prefix."""
        return len(self.prompts[row]) - (self.shared.num_tokens if self.shared else 0)


class PackedModel:
    """May be called by many threads. `budget_tokens` is what the next batch may hold; it shrinks when memory runs out.

    A GPU runs one call at a time. On a CPU each of `threads` threads runs batches of its own, and torch has one thread
    in each: no thread waits for another within a layer, and the batches of one call may run while those of the call
    before end. This gave 1.15 to 1.35 times the tokens/s of one batch on as many torch threads, and more where other
    processes use the same cores.
    """

    def __init__(
        self, model: LlamaModel, manifest: Manifest, device: torch.device, budget_tokens: int, threads: int = 1
    ) -> None:
        self.device = device
        self.budget_tokens = budget_tokens
        self.stats = ModelStats()
        self._model = model
        self._dtype = DTYPES[manifest.precision]
        self._can_share = device.type == "cpu" or uses_varlen(device, self._dtype)
        self._pooling = manifest.pooling
        self._dimension = manifest.dimension
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model") if device.type == "cpu" else None
        self._device_lock = Lock() if self._pool is None else nullcontext()
        self._state_lock = Lock()
        """Guards the statistics, the budget and the shared prefixes."""
        self._shared_prefixes: dict[tuple[int, ...], SharedPrefix] = {}

    def run(self, prompts: Sequence[Prompt], prefix: Prompt | None = None) -> Run:
        """One vector for each prompt, in order; they are copied from the device once, at the end. `prefix` is how all
        prompts begin: it is computed once where that saves time. Raises EncodingFailed."""
        if not prompts:
            return Run([], 0.0)
        try:
            with self._device_lock, torch.inference_mode():
                return self._run(prompts, self._shared_prefix(prompts, prefix or []))
        except RuntimeError as error:
            raise EncodingFailed(f"the model cannot run on {self.device}: {error}") from error

    def _run(self, prompts: Sequence[Prompt], shared: SharedPrefix | None) -> Run:
        began = time.perf_counter()
        call = _Call(prompts, shared, torch.zeros(len(prompts), self._dimension, device=self.device))
        todo = list(range(len(prompts)))
        while todo:
            todo = self._run_batches(call, todo)
        vectors_BD = call.vectors_BD.cpu().numpy()
        # A GPU has the call to itself and is waited for only by the copy above, so the wall time counts. On a CPU
        # batches of other calls run in between, so the batches' own times count.
        device_s = time.perf_counter() - began if self._pool is None else sum(call.batches_s) / self._threads
        with self._state_lock:
            self.stats.device_s += device_s
        for row in np.flatnonzero(~np.isfinite(vectors_BD).all(axis=1)).tolist():
            call.refused[row] = Unencodable("the model gives numbers that are not finite for this text")
        return Run([call.refused.get(row, vector_D) for row, vector_D in enumerate(vectors_BD)], device_s)

    def _run_batches(self, call: _Call, todo: list[int]) -> list[int]:
        """Runs batch after batch. Where memory ran out it halves the budget and returns the rows that are left."""
        lengths = [call.num_tokens(row) for row in todo]
        budget = self._batch_tokens(sum(lengths))
        batches = [[todo[index] for index in batch] for batch in pack(lengths, budget)]
        left: list[int] = []
        largest_failed = 0
        fits = self._map(lambda rows: self._try_batch(call, rows), batches)
        for number, (rows, fit) in enumerate(zip(batches, fits, strict=True)):
            num_tokens = sum(map(call.num_tokens, rows))
            if fit:
                self._count(len(rows), num_tokens, budget)
            elif len(rows) == 1:
                call.refused[rows[0]] = Unencodable(f"its {num_tokens} tokens do not fit the device's memory")
            else:
                left += rows
                largest_failed = max(largest_failed, num_tokens)
                if self._pool is None:
                    # The batches after it are as large, and none of them has begun.
                    left += itertools.chain.from_iterable(batches[number + 1 :])
                    break
        if largest_failed:
            self._halve_budget(largest_failed)
        return left

    def _batch_tokens(self, num_tokens: int) -> int:
        """On a CPU: small enough for its caches, and the same number of batches for each thread."""
        if self._pool is None:
            return self.budget_tokens
        per_thread = math.ceil(num_tokens / self._threads)
        rounds = math.ceil(per_thread / min(self.budget_tokens, _CPU_BATCH_TOKENS[self._dtype]))
        return math.ceil(per_thread / rounds)

    def _map(self, run: Callable[[list[int]], bool], batches: list[list[int]]) -> Iterator[bool]:
        return map(run, batches) if self._pool is None else self._pool.map(run, batches)

    def _try_batch(self, call: _Call, rows: list[int]) -> bool:
        """Puts the batch's vectors into their rows; False when memory ran out. Runs in any thread. A batch that fails
        for another reason is split until the prompt that makes it fail stands alone."""
        began = time.perf_counter()
        try:
            self._run_batch(call, rows)
            return True
        except (torch.OutOfMemoryError, MemoryError):
            return False
        except Exception as error:
            if len(rows) == 1:
                self._refuse(call, rows[0], error)
                return True
        finally:
            call.batches_s.append(time.perf_counter() - began)
        # Into parts of the square root of its size: so few of the other prompts are computed more than twice.
        size = math.isqrt(len(rows))
        parts = [rows[at : at + size] for at in range(0, len(rows), size)]
        return all(self._try_batch(call, part) for part in parts)

    @torch.inference_mode()
    def _run_batch(self, call: _Call, rows: list[int]) -> None:
        call.vectors_BD[rows] = self._forward([call.prompts[row] for row in rows], call.shared)

    def _refuse(self, call: _Call, row: int, error: Exception) -> None:
        """A prompt is refused only if the device can run another prompt and fails on this one again. Raises
        EncodingFailed where the device can run no prompt at all."""
        try:
            with torch.inference_mode():
                self._forward([[0]], None)
        except Exception:
            raise EncodingFailed(f"the model cannot run on {self.device}: {error}") from error
        try:
            self._run_batch(call, [row])
        except Exception as again:
            call.refused[row] = Unencodable(f"the model fails on this text: {again}")

    def _halve_budget(self, num_tokens: int) -> None:
        """Called after the exception is handled: until then its frames hold the failed batch's tensors."""
        with self._state_lock:
            self.budget_tokens = max(1, min(self.budget_tokens, num_tokens) // 2)
            self.stats.halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, prompts: Sequence[Prompt], shared: SharedPrefix | None) -> Tensor:
        """B prompts, longest first -> (B, D) on the device."""
        skip = shared.num_tokens if shared else 0
        lengths = [len(prompt) - skip for prompt in prompts]
        rows = matrix_rows(sum(lengths), self.device, self._dtype)
        packing = Packing(lengths, self.device, rows=rows, prefix=shared.kv_cache if shared else None)
        hidden_TH = self._hidden([prompt[skip:] for prompt in prompts], skip, packing)
        pooled_BH = pool(hidden_TH, packing, self._pooling, shared)
        return F.normalize(pooled_BH[:, : self._dimension], dim=-1)

    def _hidden(self, prompts: Sequence[Prompt], first_position: int, packing: Packing) -> Tensor:
        """The model's last hidden states, (T, H)."""
        ids_T = np.fromiter(itertools.chain.from_iterable(prompts), dtype=np.int64, count=sum(packing.lengths))
        positions_T = np.concatenate([np.arange(first_position, first_position + num) for num in packing.lengths])
        ids_T, positions_T = (np.pad(numbers_T, (0, packing.spare_rows)) for numbers_T in (ids_T, positions_T))
        hidden_1TH: Tensor = self._model(
            input_ids=self._to_device(ids_T),
            position_ids=self._to_device(positions_T),
            use_cache=False,
            packing=packing,
        ).last_hidden_state
        return hidden_1TH[0]

    def _shared_prefix(self, prompts: Sequence[Prompt], prefix: Prompt) -> SharedPrefix | None:
        """None where the prefix is too short to save time, or a prompt does not continue it."""
        length = len(prefix)
        if length < _MIN_PREFIX_TOKENS or not self._can_share:
            return None
        if any(len(prompt) <= length or prompt[:length] != prefix for prompt in prompts):
            return None
        with self._state_lock:
            shared = self._shared_prefixes.get(tuple(prefix))
            if shared is None:
                packing = Packing([length], self.device, record=True)
                hidden_PH = self._hidden([prefix], 0, packing)
                shared = SharedPrefix(length, packing.recorded or [], hidden_PH.sum(0, dtype=torch.float32))
                self._shared_prefixes[tuple(prefix)] = shared
        return shared

    def _to_device(self, numbers_T: Any) -> Tensor:
        """(1, T)"""
        tensor_1T = torch.from_numpy(numbers_T).unsqueeze(0)
        if self.device.type == "cuda":
            return tensor_1T.pin_memory().to(self.device, non_blocking=True)
        return tensor_1T

    def _count(self, num_prompts: int, num_tokens: int, budget: int) -> None:
        with self._state_lock:
            self.stats.prompts += num_prompts
            self.stats.tokens += num_tokens
            self.stats.batches += 1
            self.stats.budget_tokens += max(budget, num_tokens)
            self.stats.spare_rows += matrix_rows(num_tokens, self.device, self._dtype) - num_tokens


def pool(hidden_TH: Tensor, packing: Packing, pooling: PoolingMode, shared: SharedPrefix | None = None) -> Tensor:
    """(T, H) -> (B, H) in float32, as sentence-transformers pools."""
    if pooling == "last":
        return hidden_TH[packing.starts[1:].long() - 1].float()
    means = []
    sizes = [*(length * count for length, count in packing.groups), packing.spare_rows]
    for (length, count), group_TH in zip(packing.groups, torch.split(hidden_TH, sizes)[:-1], strict=True):
        sums_BH = group_TH.view(count, length, -1).sum(1, dtype=torch.float32)
        means.append(sums_BH / length if shared is None else (sums_BH + shared.sum_H) / (length + shared.num_tokens))
    return torch.cat(means)
