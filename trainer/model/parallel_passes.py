"""The forward passes of a batch in parallel threads of a CPU, and their backward passes too, by torch's autograd.

torch's own threads share small matrices badly: each step of a layer waits for the slower thread. A pass in one thread
waits for no other. Owns which thread computes which pass. Knows no model.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class ParallelPasses:
    """Of n threads each takes every n-th pass, so that as many threads always add gradients in the same order."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "pass")

    def __call__(self, passes: Sequence[Callable[[], Tensor]], weights: Sequence[Tensor]) -> Tensor:
        """The rows of all passes, in their order. Each pass uses all `weights`, and nothing else that learns."""
        rows: Tensor = _PassesFunction.apply(self, passes, *weights)
        return rows

    def in_threads(self, run: Callable[[slice], Any], num_passes: int) -> list[Any]:
        """Calls `run` in each thread with which passes the thread takes. Results are in the order of the threads."""

        def run_in_one_torch_thread(first: int) -> Any:
            torch.set_num_threads(1)
            return run(slice(first, None, self._threads))

        results = list(self._pool.map(run_in_one_torch_thread, range(min(self._threads, num_passes))))
        torch.set_num_threads(self._threads)  # threads that start later begin with the number that was set last
        return results


class _PassesFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parallel: ParallelPasses, passes: Any, *weights: Tensor) -> Tensor:
        """The passes run with gradients, because torch turns them off only in this thread."""
        ctx.parallel, ctx.weights, ctx.rows = parallel, weights, [torch.empty(0)] * len(passes)

        def run(share: slice) -> None:
            ctx.rows[share] = [one_pass() for one_pass in passes[share]]

        parallel.in_threads(run, len(passes))
        return torch.cat(ctx.rows)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> Any:
        grads_of_passes = torch.split(grad_rows, [len(rows) for rows in ctx.rows])

        def run(share: slice) -> Any:
            return torch.autograd.grad(ctx.rows[share], ctx.weights, grads_of_passes[share])

        grads_of_threads = ctx.parallel.in_threads(run, len(ctx.rows))
        return None, None, *(sum(grads[1:], grads[0]) for grads in zip(*grads_of_threads, strict=True))
