"""From a batch's hidden states to one vector for each prompt. Shapes: T tokens of a packed batch, B prompts, H the
model's size."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.model.attention import KVCache, Packing
from encoders.package.manifest import PoolingMode


class SharedPrefix(NamedTuple):
    """The tokens that many prompts begin with, computed once."""

    num_tokens: int
    kv_cache: KVCache
    sum_H: Tensor
    """The sum of the prefix's hidden states. It is added to a prompt's own sum before the mean is taken."""


def pool(hidden_TH: Tensor, packing: Packing, pooling: PoolingMode, shared: SharedPrefix | None = None) -> Tensor:
    """(T, H) -> (B, H) in float32, as sentence-transformers pools."""
    if pooling == "last":
        return hidden_TH[packing.starts[1:].long() - 1].float()
    if hidden_TH.requires_grad and hidden_TH.device.type == "cpu":
        return _means_by_length(hidden_TH, packing, shared)
    if hidden_TH.requires_grad and shared is None:
        means_BH: Tensor = LearningMeans.apply(hidden_TH, packing)
        return means_BH
    return _means(hidden_TH, packing, shared)


def _means(hidden_TH: Tensor, packing: Packing, shared: SharedPrefix | None) -> Tensor:
    """In one reduction, however many lengths there are. In float32, because it adds up in the type of its input."""
    rows_T = torch.arange(len(hidden_TH), dtype=torch.int32, device=hidden_TH.device)
    sums_BH = F.embedding_bag(rows_T, hidden_TH.float(), packing.starts, mode="sum", include_last_offset=True)
    lengths_B1 = packing.starts.diff().unsqueeze(1)
    return sums_BH / lengths_B1 if shared is None else (sums_BH + shared.sum_H) / (lengths_B1 + shared.num_tokens)


class LearningMeans(torch.autograd.Function):
    """The means with a gradient, for a GPU: one reduction and one copy back, however many lengths there are, and always
    the same. Called with (T, H) and the packing; gives (B, H) in float32."""

    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, packing: Packing) -> Tensor:
        ctx.packing, ctx.dtype = packing, hidden_TH.dtype
        return _means(hidden_TH, packing, None)

    @staticmethod
    def backward(ctx: Any, grad_BH: Tensor) -> Any:
        packing: Packing = ctx.packing
        lengths_B = packing.starts.diff()
        shares_BH = (grad_BH / lengths_B.unsqueeze(1)).to(ctx.dtype)
        # Without the size torch would wait for the device, to ask it.
        grad_TH = shares_BH.repeat_interleave(lengths_B, dim=0, output_size=sum(packing.lengths))
        return F.pad(grad_TH, (0, 0, 0, packing.spare_rows)), None


def _means_by_length(hidden_TH: Tensor, packing: Packing, shared: SharedPrefix | None) -> Tensor:
    """The prompts of one length together. Its gradient is a plain expansion, and always the same."""
    means = []
    sizes = [*(length * count for length, count in packing.groups), packing.spare_rows]
    for (length, count), group_TH in zip(packing.groups, torch.split(hidden_TH, sizes)[:-1], strict=True):
        sums_BH = group_TH.view(count, length, -1).sum(1, dtype=torch.float32)
        means.append(sums_BH / length if shared is None else (sums_BH + shared.sum_H) / (length + shared.num_tokens))
    return torch.cat(means)
