"""Causal attention over packed prompts, registered with transformers under the name `nearline_packed`.

No mask is ever built: the name is unknown to transformers' registry of masks, which then makes none. On CUDA it is
`torch.nn.attention.varlen`; elsewhere scaled-dot-product attention, prompts of equal length stacked.
Shapes: T tokens of all prompts, N heads, D size of a head, L tokens of one prompt.
"""

from itertools import groupby
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

ATTENTION: Final = "nearline_packed"


class Packing:
    """Where each prompt lies in a packed batch. Prompts of equal length that lie side by side are computed together."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        self.lengths = lengths
        self.groups = [(length, len(list(same))) for length, same in groupby(lengths)]
        self.longest = max(lengths)
        starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        starts[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
        self.starts = starts.to(device, non_blocking=True)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query (1, N, T, D), key and value (1, fewer N, T, D) -> (1, T, N, D)."""
    attend = _on_cuda if query.is_cuda else _by_length
    return attend(query[0], key[0], value[0], packing, scaling), None


def _on_cuda(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        packing.starts,
        packing.starts,
        packing.longest,
        packing.longest,
        scale=scaling,
        window_size=(-1, 0),  # causal: everything to the left, nothing to the right
        enable_gqa=query.shape[0] != key.shape[0],
    )
    assert isinstance(out, Tensor)  # a tuple only where the log-sum-exp is asked for
    return out.unsqueeze(0)


def _by_length(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    out = []
    start = 0
    for length, num in packing.groups:
        end = start + length * num
        q, k, v = (
            side[:, start:end].reshape(-1, num, length, side.shape[2]).transpose(0, 1) for side in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=length > 1, scale=scaling, enable_gqa=query.shape[0] != key.shape[0]
        )
        out.append(attended.transpose(1, 2).flatten(0, 1))
        start = end
    return torch.cat(out).unsqueeze(0)


AttentionInterface.register(ATTENTION, packed_attention)
