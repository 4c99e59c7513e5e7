"""Where each held post's newest record is in the log, and which post leaves next. Owns the floors; knows no posts.

The slots of one partition are a doubly linked list in the order of their offsets, in arrays. So nothing is ever sorted
or rebuilt, and each step costs the same with a hundred posts and with ten million.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.hot.matrix.arrays import grown
from indexer.hot.slots import Slots
from indexer.tiers import Offsets
from schemas.ids import Micros, Offset, Partition

_NONE: Final = -1


@dataclass(slots=True)
class _List:
    """One partition's slots, the lowest offset first."""

    floor: Offset
    first: int = _NONE
    last: int = _NONE
    first_at_us: int = 0


class Places:
    """The partition, offset and time of the newest record of each slot's post, by slot."""

    def __init__(self, partition: npt.NDArray[np.int16], offset: Slots, at_us: npt.NDArray[np.int64]) -> None:
        self.partition = partition
        self.offset = offset
        self.at_us = at_us
        # A memoryview gives single numbers three times as fast as an array.
        self.partition_at = partition.data
        self.offset_at = offset.data
        self.at_us_at = at_us.data

    def grown(self, num_slots: int) -> "Places":
        return Places(grown(self.partition, num_slots), grown(self.offset, num_slots), grown(self.at_us, num_slots))


class ChangeOrder:
    """Only the tier's writer calls this."""

    def __init__(self) -> None:
        self.places = Places(np.zeros(0, np.int16), np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._set_links(np.zeros(0, np.int32), np.zeros(0, np.int32))
        self._lists: dict[Partition, _List] = {}

    def reserve(self, num_slots: int) -> None:
        """Makes room for slots below this number."""
        if num_slots > len(self._before):
            self.places = self.places.grown(num_slots)
            self._set_links(grown(self._before, num_slots), grown(self._after, num_slots))

    def floors(self) -> Offsets:
        return {partition: slots.floor for partition, slots in self._lists.items()}

    def floor(self, partition: Partition, first_offset: Offset) -> Offset:
        """The partition's floor. A partition without one begins at `first_offset`."""
        slots = self._lists.get(partition)
        if slots is None:
            slots = self._lists[partition] = _List(first_offset)
        return slots.floor

    def set_floor(self, partition: Partition, floor: Offset) -> None:
        self._lists.setdefault(partition, _List(floor)).floor = floor

    def append(self, slot: int, partition: Partition, offset: Offset, at_us: Micros) -> None:
        """The slot's post has changed by the newest record of the partition."""
        slots = self._lists[partition]
        self.places.partition_at[slot] = partition
        self.places.offset_at[slot] = offset
        self.places.at_us_at[slot] = at_us
        self._before_at[slot], self._after_at[slot] = slots.last, _NONE
        if slots.last == _NONE:
            slots.first, slots.first_at_us = slot, at_us
        else:
            self._after_at[slots.last] = slot
        slots.last = slot

    def renew(self, slot: int, partition: Partition, offset: Offset, at_us: Micros) -> None:
        """A record that does not change the slot's post; if it is newer than the post's newest one, it becomes that."""
        if self.is_later(slot, partition, offset):
            self.remove(slot)
            self.append(slot, partition, offset, at_us)

    def is_later(self, slot: int, partition: Partition, offset: Offset) -> bool:
        """Whether a record comes behind the newest one of the slot's post, in the same partition."""
        return partition == self.places.partition_at[slot] and offset > self.places.offset_at[slot]

    def remove(self, slot: int) -> None:
        slots = self._lists[Partition(self.places.partition_at[slot])]
        before, after = self._before_at[slot], self._after_at[slot]
        if before == _NONE:
            slots.first = after
            slots.first_at_us = 0 if after == _NONE else self.places.at_us_at[after]
        else:
            self._after_at[before] = after
        if after == _NONE:
            slots.last = before
        else:
            self._before_at[after] = before

    def pop_oldest(self) -> int:
        """Removes the slot that leaves first when there is no room, and moves the floor of its partition behind it."""
        held = [(slots.first_at_us, partition) for partition, slots in self._lists.items() if slots.first != _NONE]
        return self._pop(min(held)[1])

    def pop_older(self, at_us: float) -> Iterator[int]:
        """Removes first slots, of all partitions, as long as they are older."""
        for partition, slots in self._lists.items():
            while slots.first != _NONE and slots.first_at_us < at_us:
                yield self._pop(partition)

    def pop_before(self, partition: Partition, offset: float) -> Iterator[int]:
        """Removes the partition's first slots as long as their offset is lower."""
        slots = self._lists[partition]
        while slots.first != _NONE and self.places.offset_at[slots.first] < offset:
            yield self._pop(partition)

    def fill(self, slots: Slots, places: Places, floors: Offsets) -> None:
        """Takes over slots in any order, into an empty order. `places` is by row of `slots`."""
        self.reserve(int(slots.max(initial=-1)) + 1)
        self.places.partition[slots] = places.partition
        self.places.offset[slots] = places.offset
        self.places.at_us[slots] = places.at_us
        self._lists = {partition: _List(floor) for partition, floor in floors.items()}
        for partition, filled in self._lists.items():
            rows = np.flatnonzero(places.partition == partition)
            ordered = slots[rows[np.argsort(places.offset[rows], kind="stable")]]
            if len(ordered):
                self._before[ordered[1:]], self._after[ordered[:-1]] = ordered[:-1], ordered[1:]
                self._before[ordered[0]] = self._after[ordered[-1]] = _NONE
                filled.first, filled.last = int(ordered[0]), int(ordered[-1])
                filled.first_at_us = self.places.at_us_at[filled.first]

    def _pop(self, partition: Partition) -> int:
        slots = self._lists[partition]
        slot = slots.first
        slots.floor = Offset(max(slots.floor, self.places.offset_at[slot] + 1))
        self.remove(slot)
        return slot

    def _set_links(self, before: npt.NDArray[np.int32], after: npt.NDArray[np.int32]) -> None:
        self._before, self._after = before, after
        self._before_at, self._after_at = before.data, after.data
