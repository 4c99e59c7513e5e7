"""Causal attention over packed prompts, registered with transformers under the name `nearline_packed`.

No mask is ever built: the name is unknown to transformers' registry of masks, which then makes none. On CUDA it is
`torch.nn.attention.varlen`, which knows half precision alone; elsewhere scaled-dot-product attention, prompts of equal
length stacked. Shapes: T tokens of all prompts, N heads, D size of a head, L tokens of one prompt, P of a prefix.
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

_Sides = tuple[Tensor, Tensor, Tensor]
"""query (N, T, D), key and value (fewer N, T, D)."""


class Packing:
    """Where each prompt lies in a packed batch. Prompts of equal length that lie side by side are computed together.

    `prefix`: every prompt is seen as going on from this one. `record`: keys and values are kept in `layers`. `rows`
    of the batch's matrices: those after the last prompt belong to none and see nothing but themselves.
    """

    def __init__(
        self,
        lengths: list[int],
        device: torch.device,
        *,
        rows: int | None = None,
        prefix: Layers | None = None,
        record: bool = False,
    ) -> None:
        self.lengths = lengths
        self.spare_rows = 0 if rows is None else rows - sum(lengths)
        self.prefix = prefix
        self.layers: Layers | None = [] if record else None
        self.groups = [(length, len(list(same))) for length, same in groupby(lengths)]
        self.longest = max(lengths)
        self.prefix_tokens = 0 if prefix is None else prefix[0][0].shape[2]
        self.starts = _starts(lengths, device)
        self.texts = torch.tensor([*lengths, *[1] * self.spare_rows], dtype=torch.int32)
        """Lengths, on the CPU; each row that belongs to no prompt is one of its own."""


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
        packing.layers.append((key.contiguous(), value.contiguous()))
    sides = query[0], key[0], value[0]
    if packing.prefix is not None:
        prefix = packing.prefix[int(module.layer_idx)]  # type: ignore[arg-type]
        return _after_prefix(sides, packing, prefix, scaling), None
    if uses_varlen(query.device, query.dtype):
        return _own_by_varlen(sides, packing, scaling)[0].unsqueeze(0), None
    return _by_length(*sides, packing, scaling), None


def uses_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def _by_length(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    out = []
    for length, (q, k, v) in _by_group(packing, query, key, value):
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=length > 1, scale=scaling, enable_gqa=query.shape[0] != key.shape[0]
        )
        out.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(out).unsqueeze(0)


def _after_prefix(sides: _Sides, packing: Packing, prefix: tuple[Tensor, Tensor], scaling: float | None) -> Tensor:
    """What a token sees in the prefix and what it sees in its own prompt are two softmaxes; their log-sum-exps say
    exactly how to put them together."""
    if uses_varlen(sides[0].device, sides[0].dtype):
        seen, seen_lse = _prefix_by_varlen(sides[0], prefix, scaling)
        own, own_lse = _own_by_varlen(sides, packing, scaling)
    else:
        seen, seen_lse = _prefix_on_cpu(sides[0], prefix, scaling)
        own, own_lse = _own_on_cpu(sides, packing, scaling)
    share = torch.sigmoid(seen_lse - own_lse).unsqueeze(-1).to(seen.dtype)
    return torch.lerp(own, seen, share).unsqueeze(0)


# Each of these gives (T, N, D) and the log-sum-exps (T, N).


def _prefix_on_cpu(query: Tensor, prefix: tuple[Tensor, Tensor], scaling: float | None) -> tuple[Tensor, Tensor]:
    """All tokens in one call."""
    seen, lse = _flash(query.unsqueeze(0), *prefix, 0.0, False, scale=scaling)
    return seen[0].transpose(0, 1), lse[0].t()


def _own_on_cpu(sides: _Sides, packing: Packing, scaling: float | None) -> tuple[Tensor, Tensor]:
    own, own_lse = [], []
    for length, (q, k, v) in _by_group(packing, *sides):
        attended, lse = _flash(q, k, v, 0.0, length > 1, scale=scaling)
        own.append(attended.transpose(1, 2).flatten(0, 1))
        own_lse.append(lse.transpose(1, 2).flatten(0, 1))
    return torch.cat(own), torch.cat(own_lse)


def _prefix_by_varlen(query: Tensor, prefix: tuple[Tensor, Tensor], scaling: float | None) -> tuple[Tensor, Tensor]:
    """All tokens as one long query that sees the whole prefix."""
    key, value = (side[0] for side in prefix)
    queries, keys = (_starts([side.shape[1]], query.device) for side in (query, key))
    everything = (-1, -1)
    return _varlen((query, key, value), (queries, keys), (query.shape[1], key.shape[1]), everything, scaling)


def _own_by_varlen(sides: _Sides, packing: Packing, scaling: float | None) -> tuple[Tensor, Tensor]:
    to_the_left = (-1, 0)
    return _varlen(sides, (packing.starts, packing.starts), (packing.longest, packing.longest), to_the_left, scaling)


def _varlen(
    sides: _Sides, starts: tuple[Tensor, Tensor], longest: tuple[int, int], window: tuple[int, int], scale: float | None
) -> tuple[Tensor, Tensor]:
    """`starts` and `longest` of queries and of keys."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    query, key, value = (side.transpose(0, 1) for side in sides)
    gqa = query.shape[1] != key.shape[1]
    out, lse = varlen_attn(
        query,
        key,
        value,
        *starts,
        *longest,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=window,
        enable_gqa=gqa,
    )
    return out, lse.t()


def _starts(lengths: list[int], device: torch.device) -> Tensor:
    starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    starts[1:] = torch.tensor(lengths, dtype=torch.int32).cumsum(0)
    return starts.to(device, non_blocking=True)


def _by_group(packing: Packing, *sides: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """The length of each group of equal prompts, and each side's (prompts, heads, length, D) of it."""
    groups = [*packing.groups, *([(1, packing.spare_rows)] if packing.spare_rows else [])]
    # Split once: the gradient of many slices would be as many tensors of zeros.
    sizes = [length * num for length, num in groups]
    pieces = zip(*(torch.split(side, sizes, dim=1) for side in sides), strict=True)
    for (length, num), piece in zip(groups, pieces, strict=True):
        yield length, [part.reshape(-1, num, length, part.shape[2]).transpose(0, 1) for part in piece]


AttentionInterface.register(ATTENTION, packed_attention)
