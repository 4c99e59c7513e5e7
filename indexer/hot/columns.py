"""What the hot tier knows of the post in each slot, beside what a search looks at (`matrix/matrix.py`) and its place in
the log (`change_order.py`). And in which slot a post is.

A slot's columns do not change as long as anybody may look at it.

Shapes: K slots or numbers of one call.
"""

import numpy as np
import numpy.typing as npt

from indexer.hot.matrix.arrays import grown
from indexer.hot.slots import Slots
from indexer.tiers import Numbers

NO_SLOT = -1


class Columns:
    """By slot."""

    def __init__(self, number: Numbers, revision: npt.NDArray[np.int64], deleted: npt.NDArray[np.bool_]) -> None:
        self.number = number
        self.revision = revision
        self.deleted = deleted

    @classmethod
    def empty(cls) -> "Columns":
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.bool_))

    def grown(self, num_slots: int) -> "Columns":
        if num_slots <= len(self.number):
            return self
        return Columns(grown(self.number, num_slots), grown(self.revision, num_slots), grown(self.deleted, num_slots))


class SlotOfNumber:
    """In which slot the post with a number is. One thread writes."""

    def __init__(self) -> None:
        self._slots: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        """Plus one, so that zero stands for a number without a slot."""

    def get(self, numbers: Numbers) -> Slots:
        """(K,): -1 for a number whose post is not held, and for -1."""
        known = (numbers >= 0) & (numbers < len(self._slots))
        slots = np.full(len(numbers), NO_SLOT, np.int64)
        slots[known] = self._slots[numbers[known]]
        slots[known] -= 1
        return slots

    def reserve(self, numbers: Numbers) -> None:
        """Makes room for these numbers. May copy."""
        self._slots = grown(self._slots, int(numbers.max(initial=-1)) + 1)

    def set(self, numbers: Numbers, slots: Slots) -> None:
        """Each number comes once. A slot of -1: the post is not held any more."""
        self._slots[numbers] = slots + 1
