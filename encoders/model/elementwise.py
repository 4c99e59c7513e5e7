"""What happens between the matrix products of a layer: by hand in as few passes as torch has; compiled, on a CPU as
kernels of our own, elsewhere as formulas that torch's compiler fuses.

Shapes: T tokens of a packed batch, H the model's size, N heads, D size of a head, C = D / 2, I the size within.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.model.kernels import Kernels, load_kernels

Activate = Callable[[Tensor], Tensor]


class Steps(NamedTuple):
    normed: Callable[[Tensor, float], Tensor]
    """(T, H) -> (T, H): root mean square norm without its weights."""
    turned: Callable[[Tensor, Tensor], Tensor]
    """(T, N, D), complex (T, 1, C) -> (T, N, D): each pair of numbers turned by its position's angle, where they
    lie or in new memory."""
    gated: Callable[[Tensor, Activate], Tensor]
    """(T, 2 I) -> (T, I): the gate's numbers let the others through."""
    gates_best: bool = False
    """It is quicker than what oneDNN does to the numbers of a product."""
    kernels: Kernels | None = None
    """Where they fit heads of this size: positions and attention in one pass, for the prompts that fit too."""


def choose_steps(config: LlamaConfig, device: torch.device, *, compiled: bool) -> Steps:
    """Raises EncodingFailed where nothing can be compiled."""
    if not compiled:
        return _BY_HAND
    if device.type == "cpu":
        return _by_kernels(config, load_kernels())
    return _by_compiler()


def _by_compiler() -> Steps:
    turned = torch.compile(_turned_formula)
    return Steps(
        torch.compile(_normed_formula),
        lambda heads_TND, turns_T1C: turned(heads_TND, torch.view_as_real(turns_T1C)),
        torch.compile(_gated_formula),
    )


def _by_kernels(config: LlamaConfig, kernels: Kernels) -> Steps:
    """By hand what they do not fit."""
    head = config.head_dim or config.hidden_size // config.num_attention_heads
    steps = _BY_HAND._replace(kernels=kernels if kernels.fit_heads(head) else None)
    if kernels.fit_rows(config.hidden_size):
        steps = steps._replace(normed=kernels.normed)
    if kernels.fit_rows(config.intermediate_size) and config.hidden_act == "silu":
        steps = steps._replace(gated=lambda gate_up_T2I, _: kernels.gated(gate_up_T2I), gates_best=True)
    return steps


def _normed(hidden_TH: Tensor, eps: float) -> Tensor:
    """In float32: a length or a scale that is rounded to bf16 would make the distance to fp64 1.7 times as large."""
    numbers_TH = hidden_TH.float()
    length_T1 = torch.linalg.vector_norm(numbers_TH, dim=1, keepdim=True)
    scale_T1 = torch.rsqrt(length_T1.square_().div_(hidden_TH.shape[1]).add_(eps))
    if hidden_TH.dtype == torch.float32:
        return hidden_TH * scale_T1
    return numbers_TH.mul_(scale_T1).to(hidden_TH.dtype)


def _turned(heads_TND: Tensor, turns_T1C: Tensor) -> Tensor:
    """Where they lie: with new tensors for both steps it took 1.7 times as long in bf16."""
    pairs_TNC2 = _pairs(heads_TND)
    torch.view_as_complex(pairs_TNC2).mul_(turns_T1C)
    return heads_TND if heads_TND.dtype == torch.float32 else heads_TND.copy_(pairs_TNC2.flatten(2))


def _pairs(heads_TND: Tensor) -> Tensor:
    return heads_TND.float().view(*heads_TND.shape[:2], -1, 2)


def _gated(gate_up_T2I: Tensor, activate: Activate) -> Tensor:
    gate, up = gate_up_T2I.chunk(2, 1)
    return activate(gate).mul_(up)


_BY_HAND: Final = Steps(_normed, _turned, _gated)


def _normed_formula(hidden_TH: Tensor, eps: float) -> Tensor:
    numbers_TH = hidden_TH.float()
    return (numbers_TH * torch.rsqrt(numbers_TH.square().mean(1, keepdim=True) + eps)).to(hidden_TH.dtype)


def _turned_formula(heads_TND: Tensor, turns_T1C2: Tensor) -> Tensor:
    """Turns as pairs of numbers: the compiler knows no complex ones."""
    left, right = _pairs(heads_TND).unbind(3)
    cos, sin = turns_T1C2.unbind(3)
    turned = torch.stack([left * cos - right * sin, left * sin + right * cos], 3)
    return turned.flatten(2).to(heads_TND.dtype)


def _gated_formula(gate_up_T2I: Tensor, activate: Activate) -> Tensor:
    gate, up = gate_up_T2I.chunk(2, 1)
    return activate(gate) * up
