"""The forward passes of a batch in threads side by side, and their gradients, for torch's autograd.

Small matrices share torch's threads badly: each step of a layer would wait for the slower one. Here a pass never waits
for another one. Shapes: T tokens of a batch, H the model's size.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import EncodingFailed
from trainer.model.kernels import Kernels, load_kernels
from trainer.model.layers import LONGEST, Layers, Memory, Pass, Weights

Lengths = Sequence[Sequence[int]]
"""Of the texts of each pass."""
_Found = TypeVar("_Found")


def side_by_side(llama: LlamaModel) -> "SideBySide | None":
    """None where the model's own layers must do: no compiler, a GPU, adapters, or sizes that do not fit."""
    kernels = usable_kernels()
    config = llama.config
    products = [module for name, module in llama.named_modules() if name.endswith("_proj")]
    plain = all(type(module) is nn.Linear and module.bias is None for module in products)
    learning = all(one.requires_grad and one.device.type == "cpu" for one in llama.parameters())
    if kernels is None or not products or not plain or not learning or config.hidden_act != "silu":
        return None
    head: int = llama.layers[0].self_attn.head_dim  # type: ignore[union-attr, assignment]
    return SideBySide(llama, kernels) if kernels.fit(config.hidden_size, config.intermediate_size, head) else None


def usable_kernels() -> Kernels | None:
    """None where they cannot be compiled."""
    try:
        return load_kernels()
    except EncodingFailed:
        return None


class SideBySide:
    """All layers and the last norm; embedding and pooling are torch's. Each of torch's threads takes every n-th pass,
    so that as many threads give the same sums again."""

    def __init__(self, llama: LlamaModel, kernels: Kernels) -> None:
        self._llama = llama
        self._layers = Layers(llama, kernels)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, "pass", initializer=torch.set_num_threads, initargs=(1,))
        self._free: list[Memory] = []

    def fit(self, lengths: Lengths) -> bool:
        return max(map(max, lengths)) <= LONGEST

    def __call__(self, embedded_TH: Tensor, lengths: Lengths) -> Tensor:
        """(T, H) -> (T, H)."""
        found: Tensor = _Function.apply(self, lengths, embedded_TH, *Weights.of(self._llama).flat())
        return found

    def forward(self, embedded_TH: Tensor, lengths: Lengths, weights: Weights) -> tuple[Tensor, list[Pass]]:
        found_TH = torch.empty_like(embedded_TH)
        parts = list(zip(*(_split(one_TH, map(sum, lengths)) for one_TH in (embedded_TH, found_TH)), strict=True))
        memories = [self._free.pop() if self._free else Memory() for _ in lengths]

        def run(number: int) -> Pass:
            given_TH, to_TH = parts[number]
            return self._layers.forward(given_TH, lengths[number], weights, memories[number], to_TH)

        return found_TH, self._each(run, len(lengths))

    def backward(self, passes: Sequence[Pass], out_gradient_TH: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
        """Of what was embedded, and of the weights. What the passes kept is used up."""
        found_TH = torch.zeros_like(out_gradient_TH)
        sizes = [len(one.last_TH) for one in passes]
        parts = list(zip(*(_split(one_TH, sizes) for one_TH in (out_gradient_TH, found_TH)), strict=True))
        flat = [[torch.zeros_like(one) for one in weights.flat()] for _ in range(min(self._threads, len(passes)))]

        def run(number: int) -> None:
            given_TH, to_TH = parts[number]
            sums = Weights.from_flat(flat[number % self._threads])
            self._layers.backward(passes[number], given_TH, weights, sums, to_TH)

        self._each(run, len(passes))
        for others in flat[1:]:
            torch._foreach_add_(flat[0], others)
        self._free += [one.memory for one in passes]
        return found_TH, Weights.from_flat(flat[0])

    def _each(self, run: Callable[[int], _Found], number: int) -> list[_Found]:
        """In order; those of one thread one after the other."""

        @torch.no_grad()
        def some(first: int) -> list[_Found]:
            return [run(at) for at in range(first, number, self._threads)]

        found = list(self._pool.map(some, range(self._threads)))
        return [found[at % self._threads][at // self._threads] for at in range(number)]


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layers: SideBySide, lengths: Lengths, embedded_TH: Tensor, *weights: Tensor) -> Tensor:
        ctx.layers = layers
        ctx.save_for_backward(*weights)
        found_TH, ctx.passes = layers.forward(embedded_TH, lengths, Weights.from_flat(weights))
        return found_TH

    @staticmethod
    def backward(ctx: Any, gradient_TH: Tensor) -> Any:
        passes, ctx.passes = ctx.passes, None
        weights = Weights.from_flat(ctx.saved_tensors)
        embedded_TH, sums = ctx.layers.backward(passes, gradient_TH.contiguous(), weights)
        return None, None, embedded_TH, *sums.flat()


def _split(rows_TH: Tensor, sizes: Any) -> list[Tensor]:
    return [rows_TH[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]
