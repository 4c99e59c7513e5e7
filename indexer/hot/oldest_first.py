"""Posts in the order of their age, the oldest first. Knows neither slots nor vectors."""

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

from schemas.ids import Micros, PostId

_MIN_OUTDATED: Final = 1024


class Age(NamedTuple):
    created_at_us: Micros
    post_id: PostId


class OldestFirst:
    """A heap of ages. An update or a removal of a post leaves the post's old entry in the heap. Such outdated entries
    are skipped, and removed when there are too many.

    `created_at` returns the current time of a post, or None if the post is gone. An entry with another time is
    outdated. `num_posts` returns how many posts there are."""

    def __init__(self, created_at: Callable[[PostId], Micros | None], num_posts: Callable[[], int]) -> None:
        self._created_at = created_at
        self._num_posts = num_posts
        self._heap: list[Age] = []

    def push(self, age: Age) -> None:
        heapq.heappush(self._heap, age)
        if len(self._heap) > 2 * self._num_posts() + _MIN_OUTDATED:
            # A set, because an update that keeps the time leaves an equal entry.
            self._heap = [entry for entry in set(self._heap) if self._is_current(entry)]
            heapq.heapify(self._heap)

    def oldest(self) -> Age | None:
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _is_current(self, age: Age) -> bool:
        return self._created_at(age.post_id) == age.created_at_us
