"""Where several devices train, their batches together are one batch: what a loss needs for that.

Shapes: B rows of this device's batch, C rows of all devices' batches.
"""

import torch
from sentence_transformers.util import all_gather, all_gather_padded, get_rank, get_world_size
from torch import Tensor


def gather_rows(rows_BX: Tensor) -> Tensor:
    """(C, X): the rows of all devices, in the order of their ranks. Gradients flow back to the device of a row."""
    if get_world_size() == 1:
        return rows_BX
    mask_1B = torch.ones(1, len(rows_BX), dtype=torch.bool, device=rows_BX.device)
    rows, is_row = all_gather_padded(rows_BX[None], mask_1B, with_grad=rows_BX.requires_grad)
    return rows[is_row]


def first_row(num_rows: int, device: torch.device) -> int:
    """Where this device's rows begin among those of all devices."""
    if get_world_size() == 1:
        return 0
    return int(all_gather(torch.tensor([num_rows], device=device))[: get_rank()].sum())


def weighted_by_device(loss: Tensor, counted: Tensor) -> Tensor:
    """Accelerate takes the mean of the devices' gradients, so a device's loss is weighted by how many of all counted
    pairs or queries are its own."""
    if get_world_size() == 1:
        return loss
    counts = all_gather(counted.sum()[None])
    return loss * counted.sum() * len(counts) / counts.sum()
