"""The forward passes of a batch in parallel threads, and their backward passes, as one function of torch's autograd.

torch's own threads share small matrices badly: each step of a layer waits for the slower thread. Here a pass never
waits for another one. Owns which thread computes which pass; the steps of a pass are in `layers`.

Shapes: T tokens of a batch, H the model's size.
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
"""For each pass the lengths of its texts."""
_Result = TypeVar("_Result")


def parallel_passes(llama: LlamaModel) -> "ParallelPasses | None":
    """None where the model's own layers have to do: no compiler, a GPU, adapters, or sizes that the kernels do not
    fit."""
    kernels = usable_kernels()
    config = llama.config
    projections = [module for name, module in llama.named_modules() if name.endswith("_proj")]
    is_plain = all(type(module) is nn.Linear and module.bias is None for module in projections)
    all_learn_on_cpu = all(weight.requires_grad and weight.device.type == "cpu" for weight in llama.parameters())
    if kernels is None or not projections or not is_plain or not all_learn_on_cpu or config.hidden_act != "silu":
        return None
    head: int = llama.layers[0].self_attn.head_dim  # type: ignore[union-attr, assignment]
    fit = kernels.fit(config.hidden_size, config.intermediate_size, head)
    return ParallelPasses(llama, kernels) if fit else None


def usable_kernels() -> Kernels | None:
    """None where they cannot be compiled."""
    try:
        return load_kernels()
    except EncodingFailed:
        return None


class ParallelPasses:
    """Computes all layers and the last norm; torch does the embedding and the pooling.

    There are as many threads as torch has. With n threads each takes every n-th pass, so that the same number of
    threads always adds gradients in the same order.
    """

    def __init__(self, llama: LlamaModel, kernels: Kernels) -> None:
        self._llama = llama
        self._layers = Layers(llama, kernels)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, "pass", initializer=torch.set_num_threads, initargs=(1,))
        self._free_memories: list[Memory] = []

    def fit(self, lengths: Lengths) -> bool:
        return max(map(max, lengths)) <= LONGEST

    def __call__(self, embedded_TH: Tensor, lengths: Lengths) -> Tensor:
        """(T, H) -> (T, H)"""
        out_TH: Tensor = _PassesFunction.apply(self, lengths, embedded_TH, *Weights.of(self._llama).flat())
        return out_TH

    def forward(self, embedded_TH: Tensor, lengths: Lengths, weights: Weights) -> tuple[Tensor, list[Pass]]:
        out_TH = torch.empty_like(embedded_TH)
        num_tokens = [sum(of_pass) for of_pass in lengths]
        parts = list(zip(_split(embedded_TH, num_tokens), _split(out_TH, num_tokens), strict=True))
        memories = [self._free_memories.pop() if self._free_memories else Memory() for _ in lengths]

        def run(number: int) -> Pass:
            from_TH, to_TH = parts[number]
            return self._layers.forward(from_TH, lengths[number], weights, memories[number], to_TH)

        return out_TH, self._run_all(run, len(lengths))

    def backward(self, passes: Sequence[Pass], grad_out_TH: Tensor, weights: Weights) -> tuple[Tensor, Weights]:
        """The gradients of what was embedded (T, H) and of the weights. Overwrites what the passes hold."""
        grad_embedded_TH = torch.zeros_like(grad_out_TH)
        num_tokens = [len(one_pass.last_TH) for one_pass in passes]
        parts = list(zip(_split(grad_out_TH, num_tokens), _split(grad_embedded_TH, num_tokens), strict=True))
        num_threads = min(self._threads, len(passes))
        grads = [[torch.zeros_like(weight) for weight in weights.flat()] for _ in range(num_threads)]

        def run(number: int) -> None:
            grad_part_TH, to_TH = parts[number]
            thread_grads = Weights.from_flat(grads[number % self._threads])
            self._layers.backward(passes[number], grad_part_TH, weights, thread_grads, to_TH)

        self._run_all(run, len(passes))
        for thread_grads in grads[1:]:
            torch._foreach_add_(grads[0], thread_grads)
        self._free_memories += [one_pass.memory for one_pass in passes]
        return grad_embedded_TH, Weights.from_flat(grads[0])

    def _run_all(self, run: Callable[[int], _Result], num_passes: int) -> list[_Result]:
        """The results in the order of the passes. A thread runs its passes one after the other."""

        @torch.no_grad()
        def run_in_thread(first: int) -> list[_Result]:
            return [run(number) for number in range(first, num_passes, self._threads)]

        results = list(self._pool.map(run_in_thread, range(self._threads)))
        return [results[number % self._threads][number // self._threads] for number in range(num_passes)]


class _PassesFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, passes: ParallelPasses, lengths: Lengths, embedded_TH: Tensor, *weights: Tensor) -> Tensor:
        ctx.parallel_passes = passes
        ctx.save_for_backward(*weights)
        out_TH, ctx.passes = passes.forward(embedded_TH, lengths, Weights.from_flat(weights))
        return out_TH

    @staticmethod
    def backward(ctx: Any, grad_out_TH: Tensor) -> Any:
        passes, ctx.passes = ctx.passes, None
        weights = Weights.from_flat(ctx.saved_tensors)
        grad_embedded_TH, grads = ctx.parallel_passes.backward(passes, grad_out_TH.contiguous(), weights)
        return None, None, grad_embedded_TH, *grads.flat()


def _split(rows_TH: Tensor, num_tokens: Sequence[int]) -> list[Tensor]:
    """The rows of each pass."""
    return [rows_TH[start:end] for start, end in pairwise(accumulate(num_tokens, initial=0))]
