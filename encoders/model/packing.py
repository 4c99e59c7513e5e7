"""Batches of prompts by a budget of tokens: no padding, longest first, equal lengths side by side.

Knows lengths and nothing else of a prompt.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def pack(lengths: Sequence[int], budget_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts, batch by batch. A batch has at most `budget_tokens`; a longer prompt is a batch of its own.

    Prompts are sorted by length, so that equal lengths lie side by side and a batch that is too large for the device
    comes first.
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
