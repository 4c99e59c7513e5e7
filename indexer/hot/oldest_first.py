"""Posts by age, oldest first: a heap whose outdated entries are skipped. Knows no slots."""

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

from schemas.ids import Micros, PostId

_FEW: Final = 1024


class Age(NamedTuple):
    created_at_us: Micros
    post_id: PostId


class OldestFirst:
    """`current` says the age of a post that still counts, None of one that does not; `size` how many count."""

    def __init__(self, current: Callable[[PostId], Micros | None], size: Callable[[], int]) -> None:
        self._current = current
        self._size = size
        self._heap: list[Age] = []

    def push(self, age: Age) -> None:
        heapq.heappush(self._heap, age)
        if len(self._heap) > 2 * self._size() + _FEW:
            # Updates leave an entry each; a post with the same time twice is harmless.
            self._heap = [one for one in set(self._heap) if self._counts(one)]
            heapq.heapify(self._heap)

    def oldest(self) -> Age | None:
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _counts(self, age: Age) -> bool:
        return self._current(age.post_id) == age.created_at_us
