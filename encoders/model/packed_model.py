"""Runs a package's LLaMA on a device: prompts in, vectors out.

Owns the batches and threads of a call, and what happens when memory runs out or the model fails on a text. Knows
nothing of contexts or of a prompt's fields. One batch is computed in `packed_forward.py`; the model itself is made in
`loading.py`.

Shapes: B prompts, D the dimension that vectors are cut to. `row` and `rows` are indexes of prompts in their call, and
of their vectors.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.errors import DeviceFull, Unencodable
from encoders.model.attention import FLASH, NumSplits
from encoders.model.device_memory import device_failure, device_memory, is_out_of_memory
from encoders.model.host_copies import CudaMoment, copied_to_host
from encoders.model.llama import LlamaModel
from encoders.model.loading import DTYPES
from encoders.model.model_stats import ModelStats
from encoders.model.packed_forward import PackedForward
from encoders.model.packing import pack
from encoders.model.pooling import SharedPrefix
from encoders.model.priority import run_below_all_others
from encoders.model.token_budget import TokenBudget
from encoders.package.manifest import Manifest
from encoders.prompt.prompts import Prompt
from schemas.embeddings import Vector

_CPU_BATCH_TOKENS: Final = {torch.float32: 1024, torch.bfloat16: 2048}
"""A larger batch is slower on a CPU, because its activations do not fit the caches. In bf16 they are half as large."""

_TRIES_ON_EMPTY_DEVICE: Final = 2


class RunResult(NamedTuple):
    vectors: list[Vector | Unencodable]
    """In the order of the prompts."""
    device_s: float
    """How long the device worked for this call."""


class _Part(NamedTuple):
    """The prompts of a call that go on after the same prefix, or after none."""

    rows: list[int]
    shared: SharedPrefix | None


@dataclass
class _Call:
    """The work of one call of `run`. Its threads only append to it, and no two write the same row."""

    prompts: Sequence[Prompt]
    vectors: list[tuple[list[int], Tensor]] = field(default_factory=list)
    """Rows and their vectors (B, D) on the device, batch by batch."""
    refused: dict[int, Unencodable] = field(default_factory=dict)
    """By row, the prompts without a vector."""
    batches_s: list[float] = field(default_factory=list)
    """How long each batch took, on a CPU."""

    def num_tokens(self, row: int, part: _Part) -> int:
        """How many tokens of this prompt the model computes: the tokens of a shared prefix do not count."""
        return len(self.prompts[row]) - (part.shared.num_tokens if part.shared else 0)


class _Launched(NamedTuple):
    """The vectors of a call, which the device may still be computing."""

    call: _Call
    rows: list[int]
    vectors: Tensor
    """Of these rows, (B, D), on the host."""
    moments: tuple[CudaMoment, CudaMoment] | None
    """On a GPU: where the call began and where it ends."""


class PackedModel:
    """May be called by many threads. `budget_tokens` is how many tokens the next batch may hold; the number is halved
    when memory runs out, and grows again when it does not.

    A GPU runs one call after the other. A call is launched batch by batch while the batches before it run, and the next
    call is launched while this one's vectors are copied. On a CPU each of `threads` threads runs its own batches, and
    torch uses one thread for each batch. Threads need not wait for each other in each layer, and a new call starts
    while the previous one is still finishing. Measured: 1.15 to 1.35 times the tokens/s of one batch on all torch
    threads, and more where other processes use the same cores.

    `shares_memory`: this process itself holds more on the device than the model. Then no prompt is refused because it
    does not fit: there may be room for it later.
    """

    def __init__(
        self,
        model: LlamaModel,
        manifest: Manifest,
        device: torch.device,
        budget_tokens: int,
        threads: int = 1,
        *,
        num_splits: NumSplits = FLASH,
        shares_memory: bool = False,
    ) -> None:
        self.device = device
        self.stats = ModelStats()
        self.forward = PackedForward(model, manifest, device, num_splits)
        self.memory = device_memory(device)
        self._shares_memory = shares_memory
        self._budget = TokenBudget(budget_tokens)
        self._cpu_batch_tokens = _CPU_BATCH_TOKENS[DTYPES[manifest.precision]]
        self._dimension = manifest.dimension
        self._threads = threads
        self._pool = self._new_pool(yields=False) if device.type == "cpu" else None
        self._device_lock = Lock() if self._pool is None else nullcontext()
        self._state_lock = Lock()
        """Guards the statistics and the budget."""

    @property
    def budget_tokens(self) -> int:
        return self._budget.tokens

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
        from the device together, at the end. `prefix`: the tokens that most prompts begin with. They are computed once
        if that saves time. Raises EncodingFailed: DeviceFull if others hold the device's memory."""
        if not prompts:
            return RunResult([], 0.0)
        try:
            with self._device_lock:
                launched = self._launch(_Call(prompts), prefix or [])
            return self._collect(launched)
        except (RuntimeError, MemoryError) as error:
            raise device_failure(error, self.device) from error

    def _launch(self, call: _Call, prefix: Prompt) -> _Launched:
        began = CudaMoment(self.device) if self._pool is None else None
        for part in self._parts(call.prompts, prefix):
            rows = part.rows
            while rows:
                rows = self._run_batches(call, part, rows)
        rows = list(itertools.chain.from_iterable(rows for rows, _ in call.vectors))
        empty_BD = torch.empty(0, self._dimension, device=self.device)
        vectors = copied_to_host(torch.cat([empty_BD, *(vectors_BD for _, vectors_BD in call.vectors)]))
        return _Launched(call, rows, vectors, (began, CudaMoment(self.device)) if began is not None else None)

    def _collect(self, launched: _Launched) -> RunResult:
        call = launched.call
        if launched.moments is None:
            # Batches of other calls run in between, so the times of this call's batches are added up.
            device_s = sum(call.batches_s) / self._threads
        else:
            began, end = launched.moments
            end.wait()
            device_s = began.seconds_to(end)
        # A row that no batch has computed stays NaN, and is refused below.
        vectors_BD = np.full((len(call.prompts), self._dimension), np.nan, np.float32)
        vectors_BD[launched.rows] = launched.vectors.numpy()
        with self._state_lock:
            self.stats.device_s += device_s
        for row in np.flatnonzero(~np.isfinite(vectors_BD).all(axis=1)).tolist():
            not_finite = Unencodable("the model gives numbers that are not finite for this text")
            call.refused.setdefault(row, not_finite)
        return RunResult([call.refused.get(row, vector_D) for row, vector_D in enumerate(vectors_BD)], device_s)

    def _parts(self, prompts: Sequence[Prompt], prefix: Prompt) -> list[_Part]:
        """A prompt without a token after the prefix, or with another beginning, is computed whole."""
        rows = range(len(prompts))
        if not self.forward.can_share(prefix):
            return [_Part([*rows], None)]
        length = len(prefix)
        after = {row for row in rows if len(prompts[row]) > length and prompts[row][:length] == prefix}
        parts = [_Part([row for row in rows if row not in after], None)]
        return [*parts, _Part(sorted(after), self.forward.shared_prefix(prefix))] if after else parts

    def _run_batches(self, call: _Call, part: _Part, rows: list[int]) -> list[int]:
        """Runs these rows, batch after batch. If memory runs out, halves the budget and returns the rows that have no
        vector yet."""
        lengths = [call.num_tokens(row, part) for row in rows]
        budget = self._batch_tokens(sum(lengths))
        batches = [[rows[index] for index in batch] for batch in pack(lengths, budget)]
        alone: list[int] = []
        unfinished: list[int] = []
        largest_failed = 0
        fits = self._map(lambda batch: self._try_batch(call, part, batch), batches)
        for number, (batch, fit) in enumerate(zip(batches, fits, strict=True)):
            num_tokens = sum(call.num_tokens(row, part) for row in batch)
            if fit:
                self._count_batch(len(batch), num_tokens, budget)
            elif len(batch) == 1:
                alone += batch
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
        for row in alone:
            self._try_on_empty_device(call, part, row)
        return unfinished

    def _batch_tokens(self, num_tokens: int) -> int:
        """The token budget of each batch, if all batches together have `num_tokens`. On a CPU a batch fits the caches,
        and each thread gets the same number of batches."""
        if self._pool is None:
            return self.budget_tokens
        per_thread = math.ceil(num_tokens / self._threads)
        rounds = math.ceil(per_thread / min(self.budget_tokens, self._cpu_batch_tokens))
        return math.ceil(per_thread / rounds)

    def _map(self, run: Callable[[list[int]], bool], batches: list[list[int]]) -> Iterator[bool]:
        return map(run, batches) if self._pool is None else self._pool.map(run, batches)

    def _try_batch(self, call: _Call, part: _Part, rows: list[int]) -> bool:
        """Computes the vectors of these rows. False if memory ran out. Runs in any thread. A batch that fails for
        another reason is split until the prompt that makes it fail is alone in its batch."""
        began = time.perf_counter()
        try:
            self._run_batch(call, part, rows)
            return True
        except Exception as error:
            if is_out_of_memory(error):
                return False
            if len(rows) == 1:
                return self._retry_alone(call, part, rows[0], error)
        finally:
            call.batches_s.append(time.perf_counter() - began)
        # n prompts are split into about √n parts. Only the part with the bad prompt is split again, so most others are
        # computed at most twice.
        size = math.isqrt(len(rows))
        pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
        return all(self._try_batch(call, part, piece) for piece in pieces)

    def _run_batch(self, call: _Call, part: _Part, rows: list[int]) -> None:
        vectors_BD = self.forward.vectors([call.prompts[row] for row in rows], part.shared)
        call.vectors.append((rows, vectors_BD))

    def _retry_alone(self, call: _Call, part: _Part, row: int, error: Exception) -> bool:
        """Gives a prompt that failed with `error` a second try. First runs a made-up prompt of one token: if that fails
        too, the fault is the device's, and EncodingFailed is raised. If only this prompt fails again, it is refused.
        False if memory runs out."""
        try:
            self.forward.vectors([[0]], None)
        except Exception as of_made_up:
            raise device_failure(of_made_up if is_out_of_memory(of_made_up) else error, self.device) from error
        try:
            self._run_batch(call, part, [row])
        except Exception as again:
            if is_out_of_memory(again):
                return False
            call.refused[row] = Unencodable(f"the model fails on this text: {again}")
        return True

    def _try_on_empty_device(self, call: _Call, part: _Part, row: int) -> None:
        """For a prompt that has found no memory alone. It is refused if that happens twice more, while nobody else
        holds any; if others do, it may fit later. Raises DeviceFull."""
        num_tokens = call.num_tokens(row, part)
        for _ in range(_TRIES_ON_EMPTY_DEVICE):
            self._refuse_if_full()
            if self._try_batch(call, part, [row]):
                self._count_batch(1, num_tokens, self.budget_tokens)
                return
        self._refuse_if_full()
        call.refused[row] = Unencodable(f"its {num_tokens} tokens do not fit the device's memory")

    def _refuse_if_full(self) -> None:
        self.memory.release()
        if self._shares_memory or not self.memory.is_otherwise_empty():
            with self._state_lock:
                self._budget.reset()
            raise DeviceFull(f"the memory of {self.device} is full now, because others hold much of it")

    def _halve_budget(self, num_tokens: int) -> None:
        """`num_tokens`: the size of the largest batch that failed. Call this after the exception is handled: until then
        the exception's frames hold the tensors of the failed batch."""
        with self._state_lock:
            self._budget.halve(num_tokens)
            self.stats.halvings += 1
        self.memory.release()

    def _count_batch(self, num_prompts: int, num_tokens: int, budget: int) -> None:
        with self._state_lock:
            self._budget.fits(num_tokens, budget)
            self.stats.add_batch(num_prompts, num_tokens, budget, self.forward.matrix_rows(num_tokens))
