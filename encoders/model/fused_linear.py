"""The matrix products of a layer: linear layers of one input side by side, with the weights of the norm before them.

On a CPU that computes in bf16 they are oneDNN's, with weights in its own order: torch's linear puts them into it in
every call. What follows a product (an addition, the gate) is then done while its result is still in the cache.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from encoders.model.elementwise import Steps

_ROWS_STEP: Final = 32


class Product(Protocol):
    def __call__(self, inputs: Tensor) -> Tensor: ...

    def added_to(self, hidden_TH: Tensor, inputs: Tensor) -> Tensor:
        """`hidden_TH` may be changed in place."""
        ...


def whole_rows(num_tokens: int, device: torch.device, dtype: torch.dtype) -> int:
    """How many rows a batch's matrices get. oneDNN makes code for every other number of rows, which takes it 5 ms, as
    long as the product of a thousand rows: so there are few numbers."""
    step = _ROWS_STEP if _uses_one_dnn(device, dtype) else 1
    return -(-num_tokens // step) * step


def product(linears: Sequence[nn.Linear], norm: Tensor | None = None) -> Product:
    weight, bias = _joined(linears, norm)
    return _OneDnn(weight, bias) if _uses_one_dnn(weight.device, weight.dtype) else _Plain(weight, bias)


def gate_and_up(
    gate: nn.Linear, up: nn.Linear, norm: Tensor, activation: str, steps: Steps
) -> Callable[[Tensor], Tensor]:
    """(T, H) -> (T, I). The steps put both results together where the products cannot, or not as quickly."""
    one_dnn = _uses_one_dnn(gate.weight.device, gate.weight.dtype)
    if one_dnn and activation == "silu" and not steps.gates_best:
        opening, through = _OneDnn(*_joined([gate], norm)), _OneDnn(*_joined([up], norm))
        return lambda inputs: through.times(opening(inputs, "swish"), inputs)  # as oneDNN calls SiLU
    both, activate = product([gate, up], norm), ACT2FN[activation]
    return lambda inputs: steps.gated(both(inputs), activate)


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self._weight, self._bias)

    def added_to(self, hidden_TH: Tensor, inputs: Tensor) -> Tensor:
        hidden_TH.addmm_(inputs, self._weight.t())
        return hidden_TH if self._bias is None else hidden_TH.add_(self._bias)


class _OneDnn:
    """By the operators that torch's own compiler calls."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, inputs: Tensor, activation: str = "none") -> Tensor:
        done: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self._bias, activation, [], "")
        return done

    def added_to(self, hidden_TH: Tensor, inputs: Tensor) -> Tensor:
        return self._with("add", hidden_TH, inputs)

    def times(self, others: Tensor, inputs: Tensor) -> Tensor:
        return self._with("mul", others, inputs)

    def _with(self, operation: str, others: Tensor, inputs: Tensor) -> Tensor:
        done: Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, others, self._weight, self._bias, operation)
        return done


def _uses_one_dnn(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _joined(linears: Sequence[nn.Linear], norm: Tensor | None) -> tuple[Tensor, Tensor | None]:
    weights: list[Tensor] = [linear.weight for linear in linears]
    weight = torch.cat(weights)
    if norm is not None:
        weight = (weight.float() * norm.float()).to(weight.dtype)
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    return weight, torch.cat(biases) if biases else None
