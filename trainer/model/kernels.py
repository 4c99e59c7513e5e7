"""The steps between a layer's matrix products and their gradients as machine code: `kernels.cpp`, compiled for this
processor when training begins.

Float32 on a CPU; matrices are contiguous. Shapes: T tokens of a packed pass, H the model's size, I the size within, N
heads, K heads of keys and values, D size of a head.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from encoders.model.kernels import argument, compiled

_SOURCE: Final = Path(__file__).with_name("kernels.cpp")


class Heads(NamedTuple):
    queries: int
    keys: int
    size: int
    scale: float
    """Of a query's products with keys."""
    angles_LD: Tensor
    """Of each position the cosines and the sines of its pairs' angles."""


class Kernels:
    """One for each process; see `load_kernels`. What is named `to` or `gradient` is written to."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lanes = int(library.lanes())

    def fit(self, hidden: int, inner: int, head: int) -> bool:
        """Whether a model of these sizes can be trained by them."""
        return hidden % self._lanes == 0 and inner % self._lanes == 0 and head % (2 * self._lanes) == 0

    def norm(self, from_TH: Tensor, weights_H: Tensor, eps: float, scales_T: Tensor, to_TH: Tensor) -> None:
        """Root mean square norm. `scales_T` is kept for its gradient."""
        self._run("norm", from_TH, weights_H, *from_TH.shape, ctypes.c_float(eps), scales_T, to_TH)

    def norm_gradient(
        self, from_TH: Tensor, weights_H: Tensor, scales_T: Tensor, out_gradient_TH: Tensor, sums: tuple[Tensor, Tensor]
    ) -> None:
        """Adds to `sums`: the gradient of what went in, and that of the weights."""
        self._run("norm_gradient", from_TH, weights_H, scales_T, out_gradient_TH, *from_TH.shape, *sums)

    def gate(self, from_T2I: Tensor, to_TI: Tensor) -> None:
        """SiLU of the first half times the second."""
        self._run("gate", from_T2I, *to_TI.shape, to_TI)

    def gate_gradient(self, gradient_T2I: Tensor, out_gradient_TI: Tensor) -> None:
        """What the gate was given becomes its gradient, where it lies."""
        self._run("gate_gradient", gradient_T2I, out_gradient_TI, *out_gradient_TI.shape)

    def attend(self, qkv_TX: Tensor, lengths: Tensor, heads: Heads, to_TX: Tensor, logs_NT: Tensor) -> None:
        """X: (N + 2 K) D of queries, keys and values, the first two turned where they lie; then N D. `logs_NT` is
        kept for the gradient."""
        self._run("attend", qkv_TX, *_texts(lengths, heads), to_TX, logs_NT)

    def attend_gradient(
        self, qkv_TX: Tensor, lengths: Tensor, heads: Heads, out: tuple[Tensor, Tensor, Tensor], gradient_TX: Tensor
    ) -> None:
        """Of queries, keys and values before they were turned. `out`: what came out, its logs, its gradient."""
        self._run("attend_gradient", qkv_TX, *_texts(lengths, heads), *out, gradient_TX)

    def _run(self, name: str, *given: Any) -> None:
        getattr(self._library, name)(*map(argument, given))


def _texts(lengths: Tensor, heads: Heads) -> tuple[Any, ...]:
    shape = heads.queries, heads.keys, heads.size, ctypes.c_float(heads.scale)
    return heads.angles_LD, lengths, len(lengths), *shape


@cache
def load_kernels() -> Kernels:
    """Raises EncodingFailed where there is no compiler, or it fails."""
    return Kernels(compiled(_SOURCE))
