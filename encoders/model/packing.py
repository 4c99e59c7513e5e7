"""Batches of prompts by a budget of tokens: no padding, longest first, equal lengths side by side.

Knows lengths only.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def pack(lengths: Sequence[int], budget_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts, batch by batch, each batch of at most the budget; a longer prompt is a batch of its own.

    Sorted, so that prompts of equal length lie side by side and a batch that is too large for the device is met first.
    """
    batch: list[int] = []
    tokens = 0
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if batch and tokens + lengths[index] > budget_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
