"""Causal attention over packed prompts, registered with transformers under the name `nearline_packed`.

No mask is ever built: the name is unknown to transformers' registry of masks, which then makes none. On CUDA it is
`torch.nn.attention.varlen`; elsewhere scaled-dot-product attention, prompts of equal length stacked.
Shapes: T tokens of all prompts, N heads, D size of a head, L tokens of one prompt.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

ATTENTION: Final = "nearline_packed"
_flash: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of a prefix for each layer, (1, fewer N, P, D)."""


class Packing:
    """Where each prompt lies in a packed batch. Prompts of equal length that lie side by side are computed together.

    `prefix`: every prompt is seen as going on from this one. `record`: keys and values are kept in `layers`.
    """

    def __init__(
        self, lengths: list[int], device: torch.device, *, prefix: Layers | None = None, record: bool = False
    ) -> None:
        self.lengths = lengths
        self.prefix = prefix
        self.layers: Layers | None = [] if record else None
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
    if packing.layers is not None:
        packing.layers.append((key, value))
    if packing.prefix is not None:
        prefix = packing.prefix[int(module.layer_idx)]  # type: ignore[arg-type]
        return _after_prefix((query[0], key[0], value[0]), packing, prefix, scaling), None
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
    for length, (q, k, v) in _by_group(packing, query, key, value):
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=length > 1, scale=scaling, enable_gqa=query.shape[0] != key.shape[0]
        )
        out.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(out).unsqueeze(0)


def _after_prefix(
    sides: tuple[Tensor, Tensor, Tensor], packing: Packing, prefix: tuple[Tensor, Tensor], scaling: float | None
) -> Tensor:
    """On a CPU, of query, key and value. What a token sees in the prefix, for all tokens in one call, and what it sees
    in its own prompt are two softmaxes; their log-sum-exps say exactly how to put them together."""
    query, key, value = sides
    heads = query.shape[0] // key.shape[0]
    prefix_key, prefix_value = (side.repeat_interleave(heads, 1) for side in prefix)
    seen, seen_lse = _flash(query.unsqueeze(0), prefix_key, prefix_value, 0.0, False, scale=scaling)
    key, value = key.repeat_interleave(heads, 0), value.repeat_interleave(heads, 0)
    own, own_lse = [], []
    for length, (q, k, v) in _by_group(packing, query, key, value):
        attended, lse = _flash(q, k, v, 0.0, length > 1, scale=scaling)
        own.append(attended.transpose(0, 1).flatten(1, 2))
        own_lse.append(lse.transpose(0, 1).flatten(1, 2))
    own_NTD, own_lse_NT = torch.cat(own, 1), torch.cat(own_lse, 1)
    share = torch.sigmoid(seen_lse - own_lse_NT).unsqueeze(-1).to(seen.dtype)
    return torch.lerp(own_NTD.unsqueeze(0), seen, share).transpose(1, 2)


def _by_group(packing: Packing, *sides: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """The length of each group of equal prompts, and each side's (prompts, heads, length, D) of it."""
    start = 0
    for length, num in packing.groups:
        end = start + length * num
        yield length, [side[:, start:end].reshape(-1, num, length, side.shape[2]).transpose(0, 1) for side in sides]
        start = end


AttentionInterface.register(ATTENTION, packed_attention)
