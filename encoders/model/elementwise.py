"""What happens between the matrix products of a layer: RMS norm, rotary positions, SwiGLU gate.

There are three ways. Eager: torch's operations, in as few passes over the numbers as torch has. Compiled on a CPU: the
kernels of `kernels.cpp`. Compiled elsewhere: formulas that torch's compiler fuses. All give the same numbers, up to
rounding. Owns which way is taken; knows no weights.

Shapes: T tokens of a packed batch, H the model's size, N heads, D size of a head, C = D / 2 pairs, I the size of the
MLP.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from encoders.model.kernels import Kernels, load_kernels
from encoders.model.llama import LlamaConfig

Activation = Callable[[Tensor], Tensor]


class ElementwiseOps(NamedTuple):
    rms_norm: Callable[[Tensor, float], Tensor]
    """hidden (T, H), eps -> (T, H): each row divided by its root mean square. Without weights: they are part of the
    next matrix product."""
    rotate: Callable[[Tensor, Tensor], Tensor]
    """heads (T, N, D), complex rotary (T, 1, C) -> (T, N, D): each pair of numbers rotated by its position's angle. May
    work in place."""
    swiglu: Callable[[Tensor, Activation], Tensor]
    """gate and up (T, 2 I), activation -> (T, I): activation of the gate times up."""
    swiglu_beats_onednn: bool = False
    """True if `swiglu` is quicker than oneDNN, which can apply the gate to the result of its product."""
    kernels: Kernels | None = None
    """Kernels that rotate and attend in one pass, for prompts that fit them. None if heads of this size do not."""


def choose_ops(config: LlamaConfig, device: torch.device, *, compiled: bool) -> ElementwiseOps:
    """Raises EncodingFailed if the operations are to be compiled and cannot be."""
    if not compiled:
        return _EAGER
    if device.type == "cpu":
        return _kernel_ops(config, load_kernels())
    return _torch_compiled_ops()


def _torch_compiled_ops() -> ElementwiseOps:
    rotate = torch.compile(_rotate_formula)
    return ElementwiseOps(
        torch.compile(_rms_norm_formula),
        lambda heads_TND, rotary_T1C: rotate(heads_TND, torch.view_as_real(rotary_T1C)),
        torch.compile(_swiglu_formula),
    )


def _kernel_ops(config: LlamaConfig, kernels: Kernels) -> ElementwiseOps:
    """The kernels, and the eager operations for sizes that do not fit the kernels."""
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    ops = _EAGER._replace(kernels=kernels if kernels.fit_heads(head) else None)
    if kernels.fit_rows(config.hidden_size):
        ops = ops._replace(rms_norm=kernels.rms_norm)
    if kernels.fit_rows(config.intermediate_size) and config.hidden_act == "silu":
        ops = ops._replace(swiglu=lambda gate_up_T2I, _: kernels.swiglu(gate_up_T2I), swiglu_beats_onednn=True)
    return ops


def _rms_norm(hidden_TH: Tensor, eps: float) -> Tensor:
    """Computes in float32. With the length or the scale rounded to bf16 the distance to fp64 would be 1.7 times as
    large."""
    numbers_TH = hidden_TH.float()
    length_T1 = torch.linalg.vector_norm(numbers_TH, dim=1, keepdim=True)
    scale_T1 = torch.rsqrt(length_T1.square_().div_(hidden_TH.shape[1]).add_(eps))
    if hidden_TH.dtype == torch.float32:
        return hidden_TH * scale_T1
    return numbers_TH.mul_(scale_T1).to(hidden_TH.dtype)


def _rotate(heads_TND: Tensor, rotary_T1C: Tensor) -> Tensor:
    """Works in place. With new tensors it took 1.7 times as long in bf16."""
    pairs_TNC2 = _pairs(heads_TND)
    torch.view_as_complex(pairs_TNC2).mul_(rotary_T1C)
    return heads_TND if heads_TND.dtype == torch.float32 else heads_TND.copy_(pairs_TNC2.flatten(2))


def _pairs(heads_TND: Tensor) -> Tensor:
    """(T, N, C, 2)"""
    return heads_TND.float().view(*heads_TND.shape[:2], -1, 2)


def _swiglu(gate_up_T2I: Tensor, activation: Activation) -> Tensor:
    gate_TI, up_TI = gate_up_T2I.chunk(2, 1)
    return activation(gate_TI).mul_(up_TI)


_EAGER: Final = ElementwiseOps(_rms_norm, _rotate, _swiglu)


def _rms_norm_formula(hidden_TH: Tensor, eps: float) -> Tensor:
    numbers_TH = hidden_TH.float()
    return (numbers_TH * torch.rsqrt(numbers_TH.square().mean(1, keepdim=True) + eps)).to(hidden_TH.dtype)


def _rotate_formula(heads_TND: Tensor, rotary_T1C2: Tensor) -> Tensor:
    """Uses pairs of real numbers, because torch's compiler does not support complex numbers."""
    first_TNC, second_TNC = _pairs(heads_TND).unbind(3)
    cos_T1C, sin_T1C = rotary_T1C2.unbind(3)
    rotated = [first_TNC * cos_T1C - second_TNC * sin_T1C, first_TNC * sin_T1C + second_TNC * cos_T1C]
    return torch.stack(rotated, 3).flatten(2).to(heads_TND.dtype)


def _swiglu_formula(gate_up_T2I: Tensor, activation: Activation) -> Tensor:
    gate_TI, up_TI = gate_up_T2I.chunk(2, 1)
    return activation(gate_TI) * up_TI
