"""Runs a package's LLaMA on a device: prompts in, vectors out.

Owns the token budget, the batches and threads of a call, what happens when memory runs out, and the prefix that prompts
share. Knows nothing of contexts or of a prompt's fields. The model itself is made in `loading.py`.

Shapes: T tokens of a packed batch, B prompts, H the model's size, D the dimension that vectors are cut to, P tokens of
a prefix. `row` and `rows` are indexes of prompts in their call, and of their vectors. Only in `matrix_rows`,
`spare_rows` and the argument `rows` of `Packing` a row is one token of a packed batch.
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
from encoders.model.priority import run_below_all_others
from encoders.package.manifest import Manifest, PoolingMode
from encoders.prompt.prompts import Prompt
from schemas.embeddings import Vector

_CPU_BATCH_TOKENS: Final = {torch.float32: 1024, torch.bfloat16: 2048}
"""A larger batch is slower on a CPU, because its activations do not fit the caches. In bf16 they are half as large."""

_MIN_PREFIX_TOKENS: Final = 8
"""A shorter prefix is not shared. Sharing means combining two softmaxes, which costs about as much as computing this
many tokens again."""


@dataclass
class ModelStats:
    """Counters since the start, for metrics. No prompt is padded; only the whole batch, to a round number of tokens."""

    prompts: int = 0
    tokens: int = 0
    batches: int = 0
    budget_tokens: int = 0
    """How many tokens the batches could have held. `tokens / budget_tokens` is how full they were."""
    padding_tokens: int = 0
    """At the ends of batches, where a round number of tokens is computed faster; see `matrix_rows`."""
    device_s: float = 0.0
    """How long the device worked. On a CPU, the time of all threads divided by their number."""
    halvings: int = 0
    """How often the budget was halved because memory ran out."""


class RunResult(NamedTuple):
    vectors: list[Vector | Unencodable]
    """In the order of the prompts."""
    device_s: float
    """How long the device worked for this call."""


class SharedPrefix(NamedTuple):
    """The tokens that all prompts of a call begin with, computed once."""

    num_tokens: int
    kv_cache: KVCache
    sum_H: Tensor
    """The sum of the prefix's hidden states. It is added to a prompt's own sum before the mean is taken."""


@dataclass
class _Call:
    """The work of one call of `run`. No lock is needed: no two threads write the same row."""

    prompts: Sequence[Prompt]
    shared: SharedPrefix | None
    vectors_BD: Tensor
    refused: dict[int, Unencodable] = field(default_factory=dict)
    """By row, the prompts without a vector."""
    batches_s: list[float] = field(default_factory=list)
    """How long each batch took."""

    def num_tokens(self, row: int) -> int:
        """How many tokens of this prompt the model computes: the tokens of a shared prefix do not count."""
        return len(self.prompts[row]) - (self.shared.num_tokens if self.shared else 0)


class PackedModel:
    """May be called by many threads. `budget_tokens` is how many tokens the next batch may hold; the number is halved
    when memory runs out.

    A GPU runs one call at a time. On a CPU each of `threads` threads runs its own batches, and torch uses one thread
    for each batch. Threads need not wait for each other in each layer, and a new call starts while the previous one is
    still finishing. Measured: 1.15 to 1.35 times the tokens/s of one batch on all torch threads, and more where other
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
        self._can_share_prefixes = device.type == "cpu" or uses_varlen(device, self._dtype)
        self._pooling = manifest.pooling
        self._dimension = manifest.dimension
        self._threads = threads
        self._pool = self._new_pool(yields=False) if device.type == "cpu" else None
        self._device_lock = Lock() if self._pool is None else nullcontext()
        self._state_lock = Lock()
        """Guards the statistics, the budget and the shared prefixes."""
        self._shared_prefixes: dict[tuple[int, ...], SharedPrefix] = {}

    def yield_cores(self, yields: bool) -> None:
        """Whether every other process of the machine comes before this model, from the next call of `run` on. Does
        nothing on a GPU."""
        if self._pool is not None:
            # A thread may not raise its priority again, so there are new threads. The old ones end with their calls.
            self._pool = self._new_pool(yields=yields)

    def _new_pool(self, *, yields: bool) -> ThreadPoolExecutor:
        begin = run_below_all_others if yields else None
        return ThreadPoolExecutor(self._threads, thread_name_prefix="model", initializer=begin)

    def run(self, prompts: Sequence[Prompt], prefix: Prompt | None = None) -> RunResult:
        """For each prompt, in order, its vector, or an Unencodable that says why it has none. All vectors are copied
        from the device together, at the end. `prefix`: the tokens that all prompts begin with. They are computed once
        if that saves time. Raises EncodingFailed."""
        if not prompts:
            return RunResult([], 0.0)
        try:
            with self._device_lock, torch.inference_mode():
                return self._run(prompts, self._shared_prefix(prompts, prefix or []))
        except RuntimeError as error:
            raise EncodingFailed(f"the model cannot run on {self.device}: {error}") from error

    def _run(self, prompts: Sequence[Prompt], shared: SharedPrefix | None) -> RunResult:
        began = time.perf_counter()
        call = _Call(prompts, shared, torch.zeros(len(prompts), self._dimension, device=self.device))
        rows = list(range(len(prompts)))
        while rows:
            rows = self._run_batches(call, rows)
        vectors_BD = call.vectors_BD.cpu().numpy()
        # On a GPU one call runs at a time, and the copy above waits for all of it, so the wall time counts. On a CPU
        # batches of other calls run in between, so the times of this call's batches are added up.
        device_s = time.perf_counter() - began if self._pool is None else sum(call.batches_s) / self._threads
        with self._state_lock:
            self.stats.device_s += device_s
        for row in np.flatnonzero(~np.isfinite(vectors_BD).all(axis=1)).tolist():
            call.refused[row] = Unencodable("the model gives numbers that are not finite for this text")
        return RunResult([call.refused.get(row, vector_D) for row, vector_D in enumerate(vectors_BD)], device_s)

    def _run_batches(self, call: _Call, rows: list[int]) -> list[int]:
        """Runs these rows, batch after batch. If memory runs out, halves the budget and returns the rows that have no
        vector yet."""
        lengths = [call.num_tokens(row) for row in rows]
        budget = self._batch_tokens(sum(lengths))
        batches = [[rows[index] for index in batch] for batch in pack(lengths, budget)]
        unfinished: list[int] = []
        largest_failed = 0
        fits = self._map(lambda batch: self._try_batch(call, batch), batches)
        for number, (batch, fit) in enumerate(zip(batches, fits, strict=True)):
            num_tokens = sum(map(call.num_tokens, batch))
            if fit:
                self._count_batch(len(batch), num_tokens, budget)
            elif len(batch) == 1:
                call.refused[batch[0]] = Unencodable(f"its {num_tokens} tokens do not fit the device's memory")
            else:
                unfinished += batch
                largest_failed = max(largest_failed, num_tokens)
                if self._pool is None:
                    # On a GPU `fits` is lazy: the later batches have not run yet. They are as large, so they are not
                    # tried.
                    unfinished += itertools.chain.from_iterable(batches[number + 1 :])
                    break
        if largest_failed:
            self._halve_budget(largest_failed)
        return unfinished

    def _batch_tokens(self, num_tokens: int) -> int:
        """The token budget of each batch, if all batches together have `num_tokens`. On a CPU a batch fits the caches,
        and each thread gets the same number of batches."""
        if self._pool is None:
            return self.budget_tokens
        per_thread = math.ceil(num_tokens / self._threads)
        rounds = math.ceil(per_thread / min(self.budget_tokens, _CPU_BATCH_TOKENS[self._dtype]))
        return math.ceil(per_thread / rounds)

    def _map(self, run: Callable[[list[int]], bool], batches: list[list[int]]) -> Iterator[bool]:
        return map(run, batches) if self._pool is None else self._pool.map(run, batches)

    def _try_batch(self, call: _Call, rows: list[int]) -> bool:
        """Writes the vectors of these rows. False if memory ran out. Runs in any thread. A batch that fails for another
        reason is split until the prompt that makes it fail is alone in its batch."""
        began = time.perf_counter()
        try:
            self._run_batch(call, rows)
            return True
        except (torch.OutOfMemoryError, MemoryError):
            return False
        except Exception as error:
            if len(rows) == 1:
                self._retry_alone(call, rows[0], error)
                return True
        finally:
            call.batches_s.append(time.perf_counter() - began)
        # n prompts are split into about √n parts. Only the part with the bad prompt is split again, so most others are
        # computed at most twice.
        size = math.isqrt(len(rows))
        parts = [rows[at : at + size] for at in range(0, len(rows), size)]
        return all(self._try_batch(call, part) for part in parts)

    @torch.inference_mode()
    def _run_batch(self, call: _Call, rows: list[int]) -> None:
        call.vectors_BD[rows] = self._forward([call.prompts[row] for row in rows], call.shared)

    def _retry_alone(self, call: _Call, row: int, error: Exception) -> None:
        """Gives a prompt that failed with `error` a second try. First runs a made-up prompt of one token: if that fails
        too, the fault is the device's, and EncodingFailed is raised. If only this prompt fails again, it is refused."""
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
        """`num_tokens`: the size of the largest batch that failed. Call this after the exception is handled: until then
        the exception's frames hold the tensors of the failed batch."""
        with self._state_lock:
            self.budget_tokens = max(1, min(self.budget_tokens, num_tokens) // 2)
            self.stats.halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, prompts: Sequence[Prompt], shared: SharedPrefix | None) -> Tensor:
        """B prompts, longest first -> (B, D) on the device."""
        skip = shared.num_tokens if shared else 0
        lengths = [len(prompt) - skip for prompt in prompts]
        num_matrix_rows = matrix_rows(sum(lengths), self.device, self._dtype)
        packing = Packing(lengths, self.device, rows=num_matrix_rows, prefix=shared.kv_cache if shared else None)
        hidden_TH = self._hidden([prompt[skip:] for prompt in prompts], skip, packing)
        pooled_BH = pool(hidden_TH, packing, self._pooling, shared)
        return F.normalize(pooled_BH[:, : self._dimension], dim=-1)

    def _hidden(self, prompts: Sequence[Prompt], first_position: int, packing: Packing) -> Tensor:
        """The model's last hidden states, (T, H), for prompts whose first token has this position."""
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
        """None if the prefix is too short to save time, or if a prompt does not begin with it, or has no
        token after it."""
        length = len(prefix)
        if length < _MIN_PREFIX_TOKENS or not self._can_share_prefixes:
            return None
        if any(len(prompt) <= length or prompt[:length] != prefix for prompt in prompts):
            return None
        with self._state_lock:
            shared = self._shared_prefixes.get(tuple(prefix))
            if shared is None:
                packing = Packing([length], self.device, keep_kv=True)
                hidden_PH = self._hidden([prefix], 0, packing)
                shared = SharedPrefix(length, packing.kept_kv or [], hidden_PH.sum(0, dtype=torch.float32))
                self._shared_prefixes[tuple(prefix)] = shared
        return shared

    def _to_device(self, numbers_T: Any) -> Tensor:
        """(1, T)"""
        tensor_1T = torch.from_numpy(numbers_T).unsqueeze(0)
        if self.device.type == "cuda":
            return tensor_1T.pin_memory().to(self.device, non_blocking=True)
        return tensor_1T

    def _count_batch(self, num_prompts: int, num_tokens: int, budget: int) -> None:
        with self._state_lock:
            self.stats.prompts += num_prompts
            self.stats.tokens += num_tokens
            self.stats.batches += 1
            self.stats.budget_tokens += max(budget, num_tokens)
            self.stats.padding_tokens += matrix_rows(num_tokens, self.device, self._dtype) - num_tokens


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
