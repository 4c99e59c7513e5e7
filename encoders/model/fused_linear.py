"""The matrix products of a layer: linear layers that read the same input become one, which also holds the weights of
the norm before it.

On a CPU that computes in bf16 they run in oneDNN, with the weights reordered once when the model is loaded; torch's
linear layer would reorder them in every call. oneDNN also does what follows a product (an addition, the SwiGLU gate)
while the result is still in the cache. Owns which library multiplies; knows nothing of attention.

Shapes: T rows of a batch's matrices, H the model's size, I the size of the MLP, X numbers of an input, Y numbers of a
result.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.model.elementwise import ElementwiseOps
from encoders.model.llama import ACT2FN

_ROWS_STEP: Final = 32


class FusedLinear(Protocol):
    def __call__(self, inputs_TX: Tensor) -> Tensor:
        """(T, Y)"""
        ...

    def added_to(self, hidden_TH: Tensor, inputs_TX: Tensor) -> Tensor:
        """The residual plus the product, (T, H). `hidden_TH` may be changed in place."""
        ...


def matrix_rows(num_tokens: int, device: torch.device, dtype: torch.dtype) -> int:
    """How many rows a batch's matrices get. oneDNN generates code for every new number of rows. That takes 5 ms, as
    long as a product of a thousand rows, so the number is rounded up to a multiple of 32."""
    step = _ROWS_STEP if uses_onednn(device, dtype) else 1
    return -(-num_tokens // step) * step


def fuse(linears: Sequence[nn.Linear], norm_X: Tensor | None = None) -> FusedLinear:
    """One layer that gives the results of these layers side by side. `norm_X`: the weights of the norm before them."""
    weight_YX, bias_Y = _joined(linears, norm_X)
    is_onednn = uses_onednn(weight_YX.device, weight_YX.dtype)
    return _OneDnnLinear(weight_YX, bias_Y) if is_onednn else _TorchLinear(weight_YX, bias_Y)


def fuse_gate_and_up(
    gate: nn.Linear, up: nn.Linear, norm_H: Tensor, activation: str, ops: ElementwiseOps
) -> Callable[[Tensor], Tensor]:
    """(T, H) -> (T, I): both projections and the gate. oneDNN applies the gate, unless `ops` are quicker."""
    if uses_onednn(gate.weight.device, gate.weight.dtype) and activation == "silu" and not ops.swiglu_beats_onednn:
        onednn_gate, onednn_up = _OneDnnLinear(*_joined([gate], norm_H)), _OneDnnLinear(*_joined([up], norm_H))
        silu = "swish"  # oneDNN's name for it
        return lambda inputs_TH: onednn_up.multiplied_with(onednn_gate(inputs_TH, silu), inputs_TH)
    gate_and_up, function = fuse([gate, up], norm_H), ACT2FN[activation]
    return lambda inputs_TH: ops.swiglu(gate_and_up(inputs_TH), function)


class _TorchLinear:
    def __init__(self, weight_YX: Tensor, bias_Y: Tensor | None) -> None:
        self._weight_YX = weight_YX
        self._bias_Y = bias_Y

    def __call__(self, inputs_TX: Tensor) -> Tensor:
        return F.linear(inputs_TX, self._weight_YX, self._bias_Y)

    def added_to(self, hidden_TH: Tensor, inputs_TX: Tensor) -> Tensor:
        hidden_TH.addmm_(inputs_TX, self._weight_YX.t())
        return hidden_TH if self._bias_Y is None else hidden_TH.add_(self._bias_Y)


class _OneDnnLinear:
    """Calls the operators that torch's own compiler calls."""

    def __init__(self, weight_YX: Tensor, bias_Y: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_YX)
        self._bias_Y = bias_Y

    def __call__(self, inputs_TX: Tensor, activation: str = "none") -> Tensor:
        out_TY: Tensor = torch.ops.mkldnn._linear_pointwise(inputs_TX, self._weight, self._bias_Y, activation, [], "")
        return out_TY

    def added_to(self, hidden_TH: Tensor, inputs_TX: Tensor) -> Tensor:
        return self._combined("add", hidden_TH, inputs_TX)

    def multiplied_with(self, factors_TY: Tensor, inputs_TX: Tensor) -> Tensor:
        return self._combined("mul", factors_TY, inputs_TX)

    def _combined(self, operation: str, others_TY: Tensor, inputs_TX: Tensor) -> Tensor:
        binary = torch.ops.mkldnn._linear_pointwise.binary
        out_TY: Tensor = binary(inputs_TX, others_TY, self._weight, self._bias_Y, operation)
        return out_TY


def uses_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _joined(linears: Sequence[nn.Linear], norm_X: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The weights (Y, X) and the biases (Y) of all layers, in the order of the layers."""
    weights: list[Tensor] = [linear.weight for linear in linears]
    weight_YX = torch.cat(weights)
    if norm_X is not None:
        weight_YX = (weight_YX.float() * norm_X.float()).to(weight_YX.dtype)
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    return weight_YX, torch.cat(biases) if biases else None
