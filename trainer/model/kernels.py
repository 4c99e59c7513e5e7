"""The kernels of `kernels.cpp`: what happens between a layer's matrix products, and its gradients, as machine code.

They are compiled for this processor when training begins. Float32 on a CPU; tensors are contiguous. Owns the calls into
the library; `encoders.model.kernels` has the compiler. A parameter whose name begins with `to` or `grad` and comes last
is written to.

Shapes: T tokens of a packed pass, H the model's size, I the size of the MLP, N heads of queries, K heads of keys and of
values, D size of a head, X = (N + 2 K) D numbers of queries, keys and values, Y = N D, L positions.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from encoders.model.kernels import c_argument, compile_library

_SOURCE: Final = Path(__file__).with_name("kernels.cpp")


class Heads(NamedTuple):
    queries: int
    keys: int
    size: int
    scale: float
    """Factor on a query's products with keys."""
    angles_LD: Tensor
    """The rotary angles of each position: the cosines of all pairs, then the sines."""


class Kernels:
    """One for each process; see `load_kernels`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._lanes = int(library.lanes())

    def fit(self, hidden: int, inner: int, head: int) -> bool:
        """Whether a model of these sizes can be trained with them."""
        return hidden % self._lanes == 0 and inner % self._lanes == 0 and head % (2 * self._lanes) == 0

    def rms_norm(self, from_TH: Tensor, weights_H: Tensor, eps: float, inverse_rms_T: Tensor, to_TH: Tensor) -> None:
        """Also writes `inverse_rms_T`, which the backward pass needs."""
        self._call("rms_norm", from_TH, weights_H, *from_TH.shape, ctypes.c_float(eps), inverse_rms_T, to_TH)

    def rms_norm_backward(
        self,
        from_TH: Tensor,
        weights_H: Tensor,
        inverse_rms_T: Tensor,
        grad_to_TH: Tensor,
        grads: tuple[Tensor, Tensor],
    ) -> None:
        """`grads`: adds to the gradients of the norm's input (T, H) and of its weights (H)."""
        self._call("rms_norm_backward", from_TH, weights_H, inverse_rms_T, grad_to_TH, *from_TH.shape, *grads)

    def swiglu(self, gate_up_T2I: Tensor, to_TI: Tensor) -> None:
        self._call("swiglu", gate_up_T2I, *to_TI.shape, to_TI)

    def swiglu_backward(self, gate_up_T2I: Tensor, grad_to_TI: Tensor) -> None:
        """Writes the gradient of gate and up over them."""
        self._call("swiglu_backward", gate_up_T2I, grad_to_TI, *grad_to_TI.shape)

    def attend(self, qkv_TX: Tensor, lengths: Tensor, heads: Heads, to_TY: Tensor, log_sum_exp_NT: Tensor) -> None:
        """Rotates queries and keys in place. Also writes `log_sum_exp_NT`, which the backward pass needs."""
        self._call("attend", qkv_TX, *_attention_arguments(lengths, heads), to_TY, log_sum_exp_NT)

    def attend_backward(
        self, qkv_TX: Tensor, lengths: Tensor, heads: Heads, result: tuple[Tensor, Tensor, Tensor], grad_qkv_TX: Tensor
    ) -> None:
        """`result`: what `attend` wrote (T, Y), its log-sum-exps (N, T), and the gradient of the former (T, Y).
        `qkv_TX` is rotated; the gradient is with respect to what it was before."""
        self._call("attend_backward", qkv_TX, *_attention_arguments(lengths, heads), *result, grad_qkv_TX)

    def _call(self, name: str, *arguments: Any) -> None:
        getattr(self._library, name)(*map(c_argument, arguments))


def _attention_arguments(lengths: Tensor, heads: Heads) -> tuple[Any, ...]:
    shape = heads.queries, heads.keys, heads.size, ctypes.c_float(heads.scale)
    return heads.angles_LD, lengths, len(lengths), *shape


@cache
def load_kernels() -> Kernels:
    """Raises EncodingFailed where there is no compiler, or it fails."""
    return Kernels(compile_library(_SOURCE))
