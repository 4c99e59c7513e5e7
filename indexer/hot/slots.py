"""Which slots are free. Knows neither posts nor vectors.

A reader sees the slots as they were when it began. So a slot that is blanked keeps its content until all readers that
began before have ended. Only then it may be cleared and given out again.
"""

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int64]

_MIN_SPARE: Final = 4096
_SPARE_SHARE: Final = 0.25
"""Slots beyond the capacity, as a share of it. They hold posts that left while readers still look at them: at 10,000
changes a second, 300,000 of them while a snapshot of five million posts is written."""


def with_spare(capacity: int) -> int:
    """How many slots a tier of so many posts needs."""
    return capacity + max(_MIN_SPARE, int(_SPARE_SHARE * capacity))


class SlotPool:
    """One thread writes: it calls `take`, `clearable` and `give_back`. Methods marked "locked" need the tier's lock."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._num_used = 0
        """The highest slot that was ever taken, plus one."""
        self._free: list[Slots] = []
        self._num_free = 0
        """How many slots are in `_free`."""
        self._blanked: deque[tuple[int, Slots]] = deque()
        """Each after the number of the last reader that began before."""
        self._readers: set[int] = set()
        self._ended: deque[int] = deque()
        """Those of `_readers` that have ended since somebody looked."""
        self._last_reader = 0

    @property
    def num_used(self) -> int:
        """Slots from this one on were never taken."""
        return self._num_used

    def has(self, count: int) -> bool:
        return self._num_free + self._num_slots - self._num_used >= count

    def take(self, count: int) -> Slots:
        """So many free slots, cleared ones. `has(count)` must be true."""
        taken: list[Slots] = []
        while count and self._free:
            last = self._free.pop()
            taken.append(last[:count])
            if len(last) > count:
                self._free.append(last[count:])
            count -= len(taken[-1])
            self._num_free -= len(taken[-1])
        taken.append(np.arange(self._num_used, self._num_used + count))
        self._num_used += count
        return np.concatenate(taken)

    def give_back(self, slots: Slots) -> None:
        """The slots are cleared."""
        self._free.append(slots)
        self._num_free += len(slots)

    def blank(self, slots: Slots) -> None:
        """Locked. No reader that begins from now on looks at these slots."""
        if len(slots):
            self._blanked.append((self._last_reader, slots))

    def is_clearable(self) -> bool:
        """Locked."""
        return bool(self._blanked) and self._blanked[0][0] < self._oldest_reader()

    def clearable(self) -> Slots:
        """Locked. Slots that were blanked together and that no reader looks at any more; none if there are none. Each
        is returned once."""
        return self._blanked.popleft()[1] if self.is_clearable() else np.empty(0, np.int64)

    def begin_reading(self) -> int:
        """Locked. Returns the number of the reader."""
        self._forget_ended()
        self._last_reader += 1
        self._readers.add(self._last_reader)
        return self._last_reader

    def end_reading(self, reader: int) -> None:
        """Any thread, with or without the lock."""
        self._ended.append(reader)

    def _oldest_reader(self) -> int:
        self._forget_ended()
        return min(self._readers, default=self._last_reader + 1)

    def _forget_ended(self) -> None:
        while self._ended:
            self._readers.discard(self._ended.popleft())
