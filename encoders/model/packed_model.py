"""The LLaMA of a package on a device: prompts in, vectors out.

Owns the weights, the token budget and what happens when memory runs out. Knows nothing of contexts or fields.
Shapes: T tokens of a packed batch, B prompts, H the model's size, D the dimension vectors are cut to.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel, LlamaRotaryEmbedding

from encoders.errors import BadPackage, EncodingFailed, Unencodable
from encoders.model.attention import ATTENTION, Layers, Packing, uses_varlen
from encoders.model.fused_linear import whole_rows
from encoders.model.layers import use_packed_layers
from encoders.model.packing import pack
from encoders.package.manifest import Manifest, PoolingMode
from encoders.package.model_package import CONFIG_FILE, WEIGHTS_FILE
from encoders.prompt.prompts import Prompt
from schemas.embeddings import Vector

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


_CPU_BATCH_TOKENS: Final = {torch.float32: 1024, torch.bfloat16: 2048}
"""A larger batch is slower on a CPU: its activations leave the caches. Those of bf16 are half as large."""


_LEAST_SHARED: Final = 8
"""Putting two softmaxes together costs about as much as so many tokens."""


@dataclass
class ModelStats:
    """Counters since the start, for metrics. No prompt is ever padded."""

    prompts: int = 0
    tokens: int = 0
    batches: int = 0
    budget_tokens: int = 0
    """Of all batches together; tokens / budget_tokens is the fill."""
    spare_rows: int = 0
    """Of all batches: rows of their matrices that hold no token; see `whole_rows`."""
    device_s: float = 0.0
    """On a CPU of all threads together, divided by their number."""
    halvings: int = 0
    """How often the budget was halved because memory ran out."""


class Run(NamedTuple):
    """`device_s`: how long it kept the device."""

    vectors: list[Vector | Unencodable]
    device_s: float


class Shared(NamedTuple):
    """How all prompts of one side begin, computed once: what later tokens see of it, and what it adds to a mean."""

    tokens: int
    layers: Layers
    sum_H: Tensor


@dataclass
class _Call:
    """One call's work: its threads write rows of their own."""

    prompts: Sequence[Prompt]
    shared: Shared | None
    vectors_BD: Tensor
    refused: dict[int, Unencodable] = field(default_factory=dict)
    batches_s: list[float] = field(default_factory=list)

    @property
    def before(self) -> int:
        """Tokens of each prompt that are computed already."""
        return self.shared.tokens if self.shared else 0


class PackedModel:
    """Many callers. `budget_tokens` is what the next batch may hold; it shrinks when memory runs out.

    A GPU runs one call at a time. On a CPU each of `threads` threads runs batches of its own, and torch one thread in
    each: they never wait for one another within a layer, and the batches of one call follow those of the call before.
    That gave 1.15 to 1.35 times the tokens/s of as many threads of torch's on one batch, and more where other processes
    want the same cores.
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
        self._turn = Lock() if self._pool is None else nullcontext()
        self._changing = Lock()
        self._prefixes: dict[tuple[int, ...], Shared] = {}

    def run(self, prompts: Sequence[Prompt], prefix: Prompt | None = None) -> Run:
        """Vectors in the order given; they stay on the device until one copy back. `prefix` is how all prompts begin:
        it is computed once where that pays. Raises EncodingFailed."""
        if not prompts:
            return Run([], 0.0)
        try:
            with self._turn, torch.inference_mode():
                return self._run(prompts, self._shared(prompts, prefix or []))
        except RuntimeError as error:
            raise EncodingFailed(f"the model cannot run on {self.device}: {error}") from error

    def _run(self, prompts: Sequence[Prompt], shared: Shared | None) -> Run:
        began = time.perf_counter()
        call = _Call(prompts, shared, torch.zeros(len(prompts), self._dimension, device=self.device))
        todo = list(range(len(prompts)))
        while todo:
            todo = self._pass(call, todo)
        found = call.vectors_BD.cpu().numpy()
        # Batches of other calls are between those of this one on a CPU; on a GPU only the copy back waits for it.
        device_s = time.perf_counter() - began if self._pool is None else sum(call.batches_s) / self._threads
        with self._changing:
            self.stats.device_s += device_s
        for index in np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
            call.refused[index] = Unencodable("the model gives numbers that are not finite for this text")
        return Run([call.refused.get(index, vector) for index, vector in enumerate(found)], device_s)

    def _pass(self, call: _Call, todo: list[int]) -> list[int]:
        """Runs batch after batch; returns what is left when memory ran out and the budget was halved."""
        lengths = [len(call.prompts[index]) - call.before for index in todo]
        budget = self._batch_tokens(sum(lengths))
        batches = [[todo[index] for index in batch] for batch in pack(lengths, budget)]
        left: list[int] = []
        too_large = 0
        fit = self._each(lambda rows: self._fits(call, rows), batches)
        for number, (rows, fits) in enumerate(zip(batches, fit, strict=True)):
            tokens = sum(len(call.prompts[row]) - call.before for row in rows)
            if fits:
                self._count(len(rows), tokens, budget)
            elif len(rows) == 1:
                call.refused[rows[0]] = Unencodable(f"its {tokens} tokens do not fit the device's memory")
            else:
                left += rows
                too_large = max(too_large, tokens)
                if self._pool is None:
                    # The others are as large, and nothing of them has begun.
                    left += itertools.chain.from_iterable(batches[number + 1 :])
                    break
        if too_large:
            self._halve(too_large)
        return left

    def _batch_tokens(self, num_tokens: int) -> int:
        """On a CPU: small enough for its caches, and as many batches for each thread."""
        if self._pool is None:
            return self.budget_tokens
        per_thread = math.ceil(num_tokens / self._threads)
        rounds = math.ceil(per_thread / min(self.budget_tokens, _CPU_BATCH_TOKENS[self._dtype]))
        return math.ceil(per_thread / rounds)

    def _each(self, run: Callable[[list[int]], bool], batches: list[list[int]]) -> Iterator[bool]:
        return map(run, batches) if self._pool is None else self._pool.map(run, batches)

    def _fits(self, call: _Call, rows: list[int]) -> bool:
        """Puts the batch's vectors into their rows; False when memory ran out. In any thread. A batch that fails is
        taken apart until the prompt that makes it fail stands alone."""
        began = time.perf_counter()
        try:
            self._fill(call, rows)
            return True
        except (torch.OutOfMemoryError, MemoryError):
            return False
        except Exception as error:
            if len(rows) == 1:
                self._blame(call, rows[0], error)
                return True
        finally:
            call.batches_s.append(time.perf_counter() - began)
        # Parts of about the root: few of the others are computed more than twice.
        part = math.isqrt(len(rows))
        parts = [rows[at : at + part] for at in range(0, len(rows), part)]
        return all(self._fits(call, one) for one in parts)

    @torch.inference_mode()
    def _fill(self, call: _Call, rows: list[int]) -> None:
        call.vectors_BD[rows] = self._forward([call.prompts[row] for row in rows], call.shared)

    def _blame(self, call: _Call, row: int, error: Exception) -> None:
        """A prompt is to blame only where the device can do another one, and fails on it again. Raises
        EncodingFailed."""
        try:
            with torch.inference_mode():
                self._forward([[0]], None)
        except Exception:
            raise EncodingFailed(f"the model cannot run on {self.device}: {error}") from error
        try:
            self._fill(call, [row])
        except Exception as again:
            call.refused[row] = Unencodable(f"the model fails on this text: {again}")

    def _halve(self, tokens: int) -> None:
        """Called when the error is gone, and with it the tensors that its frames held."""
        with self._changing:
            self.budget_tokens = max(1, min(self.budget_tokens, tokens) // 2)
            self.stats.halvings += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, prompts: Sequence[Prompt], shared: Shared | None) -> Tensor:
        """B prompts, longest first -> (B, D) on the device."""
        before = shared.tokens if shared else 0
        lengths = [len(prompt) - before for prompt in prompts]
        rows = whole_rows(sum(lengths), self.device, self._dtype)
        packing = Packing(lengths, self.device, rows=rows, prefix=shared.layers if shared else None)
        hidden_TH = self._hidden([prompt[before:] for prompt in prompts], before, packing)
        pooled_BH = pool(hidden_TH, packing, self._pooling, shared)
        return F.normalize(pooled_BH[:, : self._dimension], dim=-1)

    def _hidden(self, prompts: Sequence[Prompt], first_position: int, packing: Packing) -> Tensor:
        ids_T = np.fromiter(itertools.chain.from_iterable(prompts), dtype=np.int64, count=sum(packing.lengths))
        positions_T = np.concatenate([np.arange(first_position, first_position + num) for num in packing.lengths])
        ids_T, positions_T = (np.pad(numbers_T, (0, packing.spare_rows)) for numbers_T in (ids_T, positions_T))
        hidden: Tensor = self._model(
            input_ids=self._to_device(ids_T),
            position_ids=self._to_device(positions_T),
            use_cache=False,
            packing=packing,
        ).last_hidden_state
        return hidden[0]

    def _shared(self, prompts: Sequence[Prompt], prefix: Prompt) -> Shared | None:
        """None where the prompts do not all go on after it, or it is too short to pay."""
        length = len(prefix)
        if length < _LEAST_SHARED or not self._can_share:
            return None
        if any(len(prompt) <= length or prompt[:length] != prefix for prompt in prompts):
            return None
        with self._changing:
            found = self._prefixes.get(tuple(prefix))
            if found is None:
                packing = Packing([length], self.device, record=True)
                hidden_PH = self._hidden([prefix], 0, packing)
                found = Shared(length, packing.layers or [], hidden_PH.sum(0, dtype=torch.float32))
                self._prefixes[tuple(prefix)] = found
        return found

    def _to_device(self, numbers_T: Any) -> Tensor:
        tensor = torch.from_numpy(numbers_T).unsqueeze(0)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _count(self, num_prompts: int, num_tokens: int, budget: int) -> None:
        with self._changing:
            self.stats.prompts += num_prompts
            self.stats.tokens += num_tokens
            self.stats.batches += 1
            self.stats.budget_tokens += max(budget, num_tokens)
            self.stats.spare_rows += whole_rows(num_tokens, self.device, self._dtype) - num_tokens


def pool(hidden_TH: Tensor, packing: Packing, pooling: PoolingMode, shared: Shared | None = None) -> Tensor:
    """(T, H) -> (B, H) in float32, as sentence-transformers pools."""
    if pooling == "last":
        return hidden_TH[packing.starts[1:].long() - 1].float()
    means = []
    sizes = [*(length * num for length, num in packing.groups), packing.spare_rows]
    for (length, num), tokens_LH in zip(packing.groups, torch.split(hidden_TH, sizes)[:-1], strict=True):
        sums = tokens_LH.view(num, length, -1).sum(1, dtype=torch.float32)
        means.append(sums / length if shared is None else (sums + shared.sum_H) / (length + shared.tokens))
    return torch.cat(means)


def load_model(folder: Path, manifest: Manifest, device: torch.device, *, compiled: bool = False) -> LlamaModel:
    """Reads safetensors and nothing else; no code of the package runs. Raises BadPackage."""
    config = read_config(folder)
    if max(manifest.dimensions) != config.hidden_size:
        raise BadPackage(f"{folder}: the largest of dimensions is not the model's size {config.hidden_size}")
    weights = read_weights(folder / WEIGHTS_FILE, device)
    if wrong := [name for name, weight in weights.items() if weight.dtype != DTYPES[manifest.precision]]:
        raise BadPackage(f"{folder}: {wrong[0]} is {weights[wrong[0]].dtype}, not {manifest.precision}")
    model = build_model(config, weights, device)
    weights.clear()  # so that each layer's are let go when its packed ones are made: never all of them twice
    use_packed_layers(model, compiled=compiled)
    return model


def read_weights(file: Path, device: torch.device) -> dict[str, Tensor]:
    """Raises BadPackage."""
    try:
        return load_file(file, device=str(device))
    except (OSError, SafetensorError) as error:
        raise BadPackage(f"{file} holds no readable safetensors: {error}") from error


def read_config(folder: Path) -> LlamaConfig:
    """Raises BadPackage."""
    try:
        fields = json.loads((folder / CONFIG_FILE).read_bytes())
        if fields.get("model_type") != "llama":
            raise BadPackage(f"{folder} holds a model of type {fields.get('model_type')}; only llama is read")
        return LlamaConfig(**fields)
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise BadPackage(f"{folder}: {CONFIG_FILE} cannot be read: {error}") from error


def build_model(config: LlamaConfig, weights: dict[str, Tensor], device: torch.device) -> LlamaModel:
    """Weights are used where they lie, not copied. Raises BadPackage when they do not fit the configuration."""
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        model: LlamaModel = LlamaModel(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadPackage(f"the weights do not fit {CONFIG_FILE}: {error}") from error
    model.rotary_emb = LlamaRotaryEmbedding(config).to(device)  # its buffers are computed, not stored
    model.requires_grad_(False)
    model.train(False)
    return model


def choose_device(name: str) -> torch.device:
    """`auto`: a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
