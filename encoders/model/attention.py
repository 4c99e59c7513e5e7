"""Causal attention over packed prompts, registered with transformers under the name `nearline_packed`.

Owns where each prompt lies in a packed batch, and which attention runs on which device. Knows no weights. No mask is
ever built: transformers knows no mask for this name and therefore makes none. On CUDA in half precision
`torch.nn.attention.varlen` is used, which supports no other precision. Elsewhere scaled-dot-product attention is used,
with prompts of equal length stacked. What `varlen` takes depends on the version of torch, of which 2.11 is the oldest.

Shapes: T tokens of all prompts, N heads of queries, K heads of keys and values, D size of a head, L tokens of one
prompt, B prompts of this length, P tokens of a prefix. X is N or K.
"""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.model.llama import AttentionInterface

ATTENTION: Final = "nearline_packed"
_flash_on_cpu: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

NumSplits = int | None
"""Into how many parts the varlen attention cuts the keys of a prompt, which are then attended to side by side."""
FLASH: Final = 0
"""Flash attention decides itself. Where torch would rather take cuDNN (newer versions, on Hopper), any number keeps
it from that: cuDNN makes a plan for each new geometry of a batch, and prompts of all lengths make every batch new."""
ONE_SPLIT: Final = 1
"""Flash attention without parts: a prompt's attention has the same bits whatever else is in its batch."""
TORCHS_CHOICE: Final = None
"""Whichever kernel torch prefers; to compare with."""

AttentionKernel = Literal["flash", "invariant", "any"]
NUM_SPLITS: Final[dict[AttentionKernel, NumSplits]] = {"flash": FLASH, "invariant": ONE_SPLIT, "any": TORCHS_CHOICE}

KVCache = list[tuple[Tensor, Tensor]]
"""Keys and values of a prefix for each layer, (1, K, P, D)."""


class _QKV(NamedTuple):
    query_NTD: Tensor
    key_KTD: Tensor
    value_KTD: Tensor


class Packing:
    """Where each prompt lies in a packed batch. Prompts of equal length that lie side by side are computed together.

    `prefix`: every prompt continues this one. `keep_kv`: the layers' keys and values are kept in `kept_kv`. `rows`: how
    many rows the batch's matrices have; a row after the last prompt is a prompt of one token, whose result nobody uses.
    `starts`: what `host_starts` gives, if it is on the device already; None: it is copied there.
    """

    def __init__(
        self,
        lengths: list[int],
        device: torch.device,
        *,
        rows: int | None = None,
        prefix: KVCache | None = None,
        keep_kv: bool = False,
        num_splits: NumSplits = FLASH,
        starts: Tensor | None = None,
    ) -> None:
        self.lengths = lengths
        self.num_splits = num_splits
        self.spare_rows = 0 if rows is None else rows - sum(lengths)
        self.prefix = prefix
        self.kept_kv: KVCache | None = [] if keep_kv else None
        self.groups = [(length, len(list(equal))) for length, equal in groupby(lengths)]
        """Length and number of the prompts of each group; without the spare rows."""
        self.longest = max(lengths)
        self.prefix_tokens = prefix_tokens(prefix)
        if starts is None:
            starts = torch.from_numpy(host_starts(lengths, self.prefix_tokens, rows)).to(device)
        self.starts, all_starts, prefix_starts = torch.split(starts, [len(lengths) + 1, 2, 2])
        """`starts`: where each prompt begins, and where the last one ends."""
        self.starts_before_prefix = all_starts, prefix_starts
        """All rows as one long prompt; and the prefix."""
        self.all_lengths = torch.tensor([*lengths, *[1] * self.spare_rows], dtype=torch.int32)
        """On the CPU: the lengths of the prompts, and 1 for each spare row."""


def prefix_tokens(prefix: KVCache | None) -> int:
    return 0 if prefix is None else prefix[0][0].shape[2]


def host_starts(lengths: Sequence[int], prefix_tokens: int, rows: int | None = None) -> npt.NDArray[np.int32]:
    """(B + 5,): all that `Packing` needs on the device, in one array, so that it is one copy."""
    ends = np.cumsum(lengths)
    num_rows = ends[-1] if rows is None else rows
    return np.concatenate([[0], ends, [0, num_rows], [0, prefix_tokens]], dtype=np.int32)


def packed_attention(
    module: torch.nn.Module,
    query_1NTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Returns (1, T, N, D) and, as transformers demands, a second value: the attention weights, here None."""
    if packing.kept_kv is not None:
        packing.kept_kv.append((key_1KTD.contiguous(), value_1KTD.contiguous()))
    qkv = _in_autocast(_QKV(query_1NTD[0], key_1KTD[0], value_1KTD[0]))
    if packing.prefix is not None:
        prefix = packing.prefix[int(module.layer_idx)]  # type: ignore[arg-type]
        return _with_prefix(qkv, packing, prefix, scaling), None
    if uses_varlen(qkv.query_NTD.device, qkv.query_NTD.dtype):
        return _causal_varlen(qkv, packing, scaling)[0].unsqueeze(0), None
    return _causal_sdpa(qkv, packing, scaling), None


def _in_autocast(qkv: _QKV) -> _QKV:
    """Where a training runs under autocast, in its precision: transformers rotates in that of the weights, float32, and
    so makes queries and keys wider than what it read."""
    kind = qkv.query_NTD.device.type
    if not torch.is_autocast_enabled(kind):
        return qkv
    return _QKV(*(tensor.to(torch.get_autocast_dtype(kind)) for tensor in qkv))


def uses_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def _causal_sdpa(qkv: _QKV, packing: Packing, scaling: float | None) -> Tensor:
    """(1, T, N, D)"""
    out = []
    for length, (query_BNLD, key_BKLD, value_BKLD) in _groups(qkv, packing):
        attended_BNLD = F.scaled_dot_product_attention(
            query_BNLD,
            key_BKLD,
            value_BKLD,
            is_causal=length > 1,
            scale=scaling,
            enable_gqa=query_BNLD.shape[1] != key_BKLD.shape[1],
        )
        out.append(attended_BNLD.transpose(1, 2).flatten(0, 1))
    return torch.cat(out).unsqueeze(0)


def _with_prefix(qkv: _QKV, packing: Packing, prefix: tuple[Tensor, Tensor], scaling: float | None) -> Tensor:
    """(1, T, N, D). A token attends to the prefix and to its own prompt in two softmaxes. The log-sum-exps of the two
    say exactly how much each of them weighs in the softmax over both."""
    if uses_varlen(qkv.query_NTD.device, qkv.query_NTD.dtype):
        prefix_TND, prefix_lse_TN = _prefix_varlen(qkv.query_NTD, packing, prefix, scaling)
        causal_TND, causal_lse_TN = _causal_varlen(qkv, packing, scaling)
    else:
        prefix_TND, prefix_lse_TN = _prefix_on_cpu(qkv.query_NTD, prefix, scaling)
        causal_TND, causal_lse_TN = _causal_on_cpu(qkv, packing, scaling)
    share_TN1 = torch.sigmoid(prefix_lse_TN - causal_lse_TN).unsqueeze(-1).to(prefix_TND.dtype)
    return torch.lerp(causal_TND, prefix_TND, share_TN1).unsqueeze(0)


# Each of the functions below returns what was attended to, (T, N, D), and the log-sum-exps, (T, N).


def _prefix_on_cpu(query_NTD: Tensor, prefix: tuple[Tensor, Tensor], scaling: float | None) -> tuple[Tensor, Tensor]:
    """All tokens in one call."""
    attended_1NTD, lse_1NT = _flash_on_cpu(query_NTD.unsqueeze(0), *prefix, 0.0, False, scale=scaling)
    return attended_1NTD[0].transpose(0, 1), lse_1NT[0].t()


def _causal_on_cpu(qkv: _QKV, packing: Packing, scaling: float | None) -> tuple[Tensor, Tensor]:
    out, lse = [], []
    for length, (query_BNLD, key_BKLD, value_BKLD) in _groups(qkv, packing):
        attended_BNLD, lse_BNL = _flash_on_cpu(query_BNLD, key_BKLD, value_BKLD, 0.0, length > 1, scale=scaling)
        out.append(attended_BNLD.transpose(1, 2).flatten(0, 1))
        lse.append(lse_BNL.transpose(1, 2).flatten(0, 1))
    return torch.cat(out), torch.cat(lse)


def _prefix_varlen(
    query_NTD: Tensor, packing: Packing, prefix: tuple[Tensor, Tensor], scaling: float | None
) -> tuple[Tensor, Tensor]:
    """All tokens as one long query that sees the whole prefix."""
    qkv = _QKV(query_NTD, *(tensor[0] for tensor in prefix))
    longest = query_NTD.shape[1], packing.prefix_tokens
    everything = (-1, -1)
    return _varlen(qkv, packing, packing.starts_before_prefix, longest, window=everything, scale=scaling)


def _causal_varlen(qkv: _QKV, packing: Packing, scaling: float | None) -> tuple[Tensor, Tensor]:
    to_the_left = (-1, 0)
    starts, longest = (packing.starts, packing.starts), (packing.longest, packing.longest)
    return _varlen(qkv, packing, starts, longest, window=to_the_left, scale=scaling)


def _varlen(
    qkv: _QKV,
    packing: Packing,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    *,
    window: tuple[int, int],
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """`starts` and `longest`: first of the queries, then of the keys."""
    from torch.nn.attention import varlen

    query_TND, key_TKD, value_TKD = (tensor.transpose(0, 1) for tensor in qkv)
    heads_per_key = query_TND.shape[1] // key_TKD.shape[1]
    options: dict[str, Any] = {}
    if _takes(varlen.varlen_attn, "enable_gqa"):
        options["enable_gqa"] = heads_per_key > 1
    elif heads_per_key > 1:
        key_TKD, value_TKD = (tensor.repeat_interleave(heads_per_key, dim=1) for tensor in (key_TKD, value_TKD))
    if _takes(varlen.varlen_attn, "num_splits"):
        options["num_splits"] = packing.num_splits
    out_TND, lse_NT = varlen.varlen_attn(
        query_TND,
        key_TKD,
        value_TKD,
        *starts,
        *longest,
        return_aux=varlen.AuxRequest(lse=True),
        scale=scale,
        window_size=window,
        **options,
    )
    return out_TND, lse_NT.t()


def takes_num_splits() -> bool:
    """Whether this torch can be told how the varlen attention cuts keys."""
    from torch.nn.attention import varlen

    return _takes(varlen.varlen_attn, "num_splits")


@cache
def _takes(function: Any, argument: str) -> bool:
    """Torch 2.11 has neither `enable_gqa` nor `num_splits`, and no kernel but flash."""
    return argument in inspect.signature(function).parameters


def _groups(qkv: _QKV, packing: Packing) -> Iterator[tuple[int, list[Tensor]]]:
    """For each group of prompts of equal length: the length, and its queries, keys and values (B, X, L, D)."""
    groups = [*packing.groups, *([(1, packing.spare_rows)] if packing.spare_rows else [])]
    # One split instead of many slices: the gradient of each slice would be a tensor of zeros as large as the batch.
    sizes = [length * count for length, count in groups]
    pieces = zip(*(torch.split(tensor, sizes, dim=1) for tensor in qkv), strict=True)
    for (length, count), piece in zip(groups, pieces, strict=True):
        yield length, [part_XTD.reshape(-1, count, length, part_XTD.shape[2]).transpose(0, 1) for part_XTD in piece]


AttentionInterface.register(ATTENTION, packed_attention)
