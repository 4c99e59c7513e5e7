"""Knows whether a feed holds everything that was in its topics a moment ago.

The feed asks the broker about every second where the topics end, and remembers when it asked. Once it has read that far
it holds everything that was there at that time. So a feed that cannot read, or a broker that does not answer, shows by
the clock alone, and topics without new records are no trouble. Knows no Kafka client.
"""

import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from retriever.feed.offsets import Place, PlaceOffsets
from retriever.reasons import Code, Reason


class _Ends(NamedTuple):
    asked_at_s: float
    ends: PlaceOffsets


class EndWatch:
    """The feed's thread calls `restart`, `interrupted`, `ask` and `moved`; any thread may use the rest."""

    def __init__(self, feed: str, stale_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`feed` is a name for sentences, such as "the hot feed"."""
        self._feed = feed
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._lock = Lock()
        self._unreached: deque[_Ends] = deque()
        """Ends that were not reached yet, oldest first."""
        self._newest: _Ends | None = None
        self._offsets: PlaceOffsets = {}
        self._whole_as_of_s = float("-inf")
        """Everything that was in the topics at this time was read."""
        self._interrupted = False
        self.has_caught_up = False
        """True from the first time on that the feed has followed closely."""

    def restart(self) -> None:
        """The feed has to read some of it again. Until then it counts as catching up."""
        with self._lock:
            self._unreached.clear()
            self._newest = None
            self._whole_as_of_s = float("-inf")
            self.has_caught_up = False

    def interrupted(self) -> None:
        """The feed has met an error."""
        self._interrupted = True

    def ask(self, read_ends: Callable[[], PlaceOffsets]) -> None:
        """Has the broker asked where the partitions end. Raises what `read_ends` raises."""
        asked_at_s = self._clock()
        ends = read_ends()
        with self._lock:
            self._newest = _Ends(asked_at_s, ends)
            self._unreached.append(self._newest)
            self._look()

    def moved(self, offsets: PlaceOffsets) -> None:
        """The feed has applied everything before these offsets."""
        with self._lock:
            self._offsets = offsets
            self._look()

    def problem(self) -> Reason | None:
        """None while the feed follows closely. Ask before a search: what it says then holds for that search."""
        with self._lock:
            age_s = self._clock() - self._whole_as_of_s
            if age_s <= self._stale_after_s:
                return None
            if not self.has_caught_up:
                return Reason(Code.HOT_CATCHING_UP, self._catching_up())
            return Reason(Code.HOT_BEHIND, f"{self._feed} has been behind the topic for {age_s:.0f} s, {self._left()}")

    def records_left(self) -> int | None:
        """How many records there are in the topics that the feed has not read. None if it has not heard from the broker
        lately."""
        with self._lock:
            return self._records_left()

    def _look(self) -> None:
        """Takes out the ends that are reached, and those that say nothing any more: reached now, they would be too old
        to count."""
        now_s = self._clock()
        while self._unreached and self._is_reached(self._unreached[0].ends):
            self._whole_as_of_s = self._unreached.popleft().asked_at_s
        while self._unreached and now_s - self._unreached[0].asked_at_s > self._stale_after_s:
            self._unreached.popleft()
        if now_s - self._whole_as_of_s <= self._stale_after_s:
            self.has_caught_up = True

    def _is_reached(self, ends: PlaceOffsets) -> bool:
        return all(self._offsets.get(place, 0) >= end for place, end in ends.items())

    def _catching_up(self) -> str:
        if self._newest is None:
            # The error itself is not named: everybody may read this sentence, without an API key.
            why = "; the log of the retriever says why" if self._interrupted else ", it is starting"
            return f"{self._feed} has not begun to read{why}"
        return f"{self._feed} is catching up, {self._left()}"

    def _left(self) -> str:
        left = self._records_left()
        return "it cannot read now" if left is None else f"{left} records to go"

    def _records_left(self) -> int | None:
        if self._newest is None or self._clock() - self._newest.asked_at_s > self._stale_after_s:
            return None
        return sum(max(end - self._offset(place), 0) for place, end in self._newest.ends.items())

    def _offset(self, place: Place) -> int:
        return max(self._offsets.get(place, 0), 0)
