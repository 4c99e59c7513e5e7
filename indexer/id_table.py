"""Post ids as small numbers, so that thousands of ids are arrays. Knows neither posts nor tiers.

Shared by all parts of one `serve` process that hold ids, also by several generations, which know mostly the same posts.
Each of them holds references, as many as posts, hits or entries of lists that it keeps. A number without references is
given to another id, but not at once: whoever got it a moment ago can still ask for its id.
"""

import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from indexer.tiers import Numbers
from schemas.ids import PostId

UNKNOWN: Final = -1
"""The number of an id that is not in the table."""
KEPT_S: Final = 10
"""An id is found for at least so long after its last reference, and its number keeps the id for so long again: whoever
found it just before is done with it by then."""
_NUM_SHARDS: Final = 128
"""A dict that grows is copied while Python's lock is held. With 10 million ids a shard has 80,000: 3 ms. With more
shards a look-up takes longer, because they do not stay in the processor's cache."""
_SHARD_MASK: Final = _NUM_SHARDS - 1
_STEP: Final = 256
"""Ids that are looked up before other threads may go on: about 0.1 ms."""
_FIRST_SIZE: Final = 1024
_BLOCK_BITS: Final = 20
_BLOCK: Final = 1 << _BLOCK_BITS
_FORGOTTEN: Final = -1
"""The time of release of a number whose id is not found any more."""


class IdTable:
    """Any thread may call any method."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._shards: list[dict[str, int]] = [{} for _ in range(_NUM_SHARDS)]
        self._look_up = [shard.get for shard in self._shards]
        self._num_numbers = 0
        """How many numbers were ever given out, the free ones included."""
        self._blocks: list[npt.NDArray[np.object_]] = []
        """The ids by number, None for a number that is free. Arrays, because Python's garbage collector looks at every
        element of a list: 100 ms for ten million."""
        self._references: npt.NDArray[np.int32] = np.zeros(_FIRST_SIZE, np.int32)
        """By number."""
        self._released: deque[tuple[int, Numbers]] = deque()
        """Numbers that had no references left, after the time when that was. Some may have new ones, or may be in here
        once more, later."""
        self._released_at_s: npt.NDArray[np.int32] = np.zeros(_FIRST_SIZE, np.int32)
        self._forgotten: deque[tuple[int, Numbers]] = deque()
        """Numbers whose ids are not found any more, after the time from which on that is so."""
        self._free = array("i")

    def __len__(self) -> int:
        """How many ids have a number."""
        return self._num_numbers - len(self._free)

    def intern(self, ids: Sequence[str]) -> Numbers:
        """The numbers of the ids, with one more reference for each. An id without a number gets one."""
        steps = [self._intern_step(ids[first : first + _STEP]) for first in range(0, len(ids), _STEP)]
        return np.concatenate(steps) if steps else np.empty(0, np.int32)

    def release(self, numbers: Numbers) -> None:
        """Takes back one reference for each number. Raises ValueError if there are not so many."""
        for first in range(0, len(numbers), _STEP):
            self._release_step(numbers[first : first + _STEP])

    def find(self, ids: Collection[str]) -> Numbers:
        """The numbers of the ids, -1 for an id without one. Adds no reference. Waits for no other thread."""
        look_up = self._look_up
        found = [look_up[hash(post_id) & _SHARD_MASK](post_id, UNKNOWN) for post_id in ids]
        return np.array(found, np.int32)

    def ids(self, numbers: Numbers) -> list[PostId]:
        """The ids of the numbers. Waits for no other thread."""
        if len(self._blocks) == 1:
            return cast(list[PostId], self._blocks[0][numbers].tolist())
        ids = np.empty(len(numbers), np.object_)
        for block in np.unique(numbers >> _BLOCK_BITS).tolist():
            own = np.flatnonzero(numbers >> _BLOCK_BITS == block)
            ids[own] = self._blocks[block][numbers[own] & (_BLOCK - 1)]
        return cast(list[PostId], ids.tolist())

    def _intern_step(self, ids: Sequence[str]) -> Numbers:
        found: list[int] = []
        shards = self._shards
        with self._lock:
            self._recycle()
            for post_id in ids:
                shard = shards[hash(post_id) & _SHARD_MASK]
                number = shard.get(post_id)
                if number is None:
                    number = shard[post_id] = self._new_number(post_id)
                found.append(number)
            self._make_room()
            numbers = np.array(found, np.int32)
            np.add.at(self._references, numbers, 1)
        return numbers

    def _new_number(self, post_id: str) -> int:
        if self._free:
            number = self._free.pop()
        else:
            number = self._num_numbers
            self._num_numbers += 1
            if number >> _BLOCK_BITS == len(self._blocks):
                self._blocks.append(np.empty(_BLOCK, np.object_))
        self._blocks[number >> _BLOCK_BITS][number & (_BLOCK - 1)] = post_id
        return number

    def _make_room(self) -> None:
        size = len(self._references)
        if self._num_numbers > size:
            self._references = np.concatenate([self._references, np.zeros(size, np.int32)])
            self._released_at_s = np.concatenate([self._released_at_s, np.zeros(size, np.int32)])

    def _release_step(self, numbers: Numbers) -> None:
        with self._lock:
            self._recycle()
            np.subtract.at(self._references, numbers, 1)
            left = self._references[numbers]
            if (left < 0).any():
                np.add.at(self._references, numbers, 1)
                raise ValueError("a number was released more often than it was interned")
            unused = np.unique(numbers[left == 0])
            if len(unused):
                now_s = int(self._clock_s())
                self._released_at_s[unused] = now_s
                self._released.append((now_s, unused))

    def _recycle(self) -> None:
        """Takes the next step with the numbers of up to two releases each, if they are old enough. Two, because each
        call adds at most one."""
        now_s = self._clock_s()
        for _ in range(2):
            if self._forgotten and now_s - self._forgotten[0][0] > KEPT_S + 1:
                self._free_numbers(self._forgotten.popleft()[1])
            if self._released and now_s - self._released[0][0] > KEPT_S + 1:
                self._forget(*self._released.popleft(), now_s)

    def _forget(self, released_at_s: int, numbers: Numbers, now_s: float) -> None:
        """From now on nobody finds the ids of those numbers that were not used since."""
        since_then = (self._references[numbers] == 0) & (self._released_at_s[numbers] == released_at_s)
        forgotten = numbers[since_then]
        for number in forgotten.tolist():
            post_id = self._blocks[number >> _BLOCK_BITS][number & (_BLOCK - 1)]
            del self._shards[hash(post_id) & _SHARD_MASK][post_id]
        self._released_at_s[forgotten] = _FORGOTTEN
        if len(forgotten):
            self._forgotten.append((int(now_s), forgotten))

    def _free_numbers(self, numbers: Numbers) -> None:
        for number in numbers.tolist():
            self._blocks[number >> _BLOCK_BITS][number & (_BLOCK - 1)] = None
            self._free.append(number)
