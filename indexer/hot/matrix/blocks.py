"""A matrix in main memory that grows by blocks: nothing is copied, and nothing that is being read moves.

Shapes: R rows, D dimensions, K slots of one call.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from indexer.hot.slots import Slots
from schemas.embeddings import Vector

_BITS: Final = 16
BLOCK: Final = 1 << _BITS
"""Rows that are allocated at once: 32 MB of 128 dimensions. A row that was never written takes no memory."""


class Blocks:
    """One thread writes, many read at the same time, each only rows that are not being written."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[Vector] = []

    def reserve(self, num_rows: int) -> None:
        while num_rows > len(self._blocks) * BLOCK:
            self._blocks.append(np.zeros((BLOCK, self._dimension), np.float32))

    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        for block, rows, own in self._by_block(slots):
            block[rows] = vectors_KD[own]

    def clear(self, slots: Slots) -> None:
        for block, rows, _ in self._by_block(slots):
            block[rows] = 0

    def gather(self, slots: Slots) -> Vector:
        """(K, D)."""
        vectors_KD = np.empty((len(slots), self._dimension), np.float32)
        for block, rows, own in self._by_block(slots):
            vectors_KD[own] = block[rows]
        return vectors_KD

    def between(self, first: int, last: int) -> Vector:
        """(R, D): the rows from `first` up to `last`, not including it. All of them are in one block. No copy."""
        start = first % BLOCK
        return self._blocks[first // BLOCK][start : start + last - first]

    def _by_block(self, slots: Slots) -> Iterator[tuple[Vector, Slots, Slots]]:
        """Each block that has some of the slots, its rows of them, and where in `slots` they stand."""
        numbers = slots >> _BITS
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            yield self._blocks[number], slots[own] & (BLOCK - 1), own
