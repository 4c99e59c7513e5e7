"""The trending lists, one for each partition of `activity`, and the ranking of all their posts together.

Knows neither Kafka nor the tiers.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Final, NamedTuple

from schemas.ids import Micros, PostId
from schemas.trending import TrendingList

_MAX_HALVINGS: Final = 1000.0
"""2^-1000 is still a float above zero, so that even a very old list keeps its order."""


class TrendingPost(NamedTuple):
    post_id: PostId
    score: float


class TrendingLists:
    """The newest list of each partition. The hot feed's thread calls `put`; any thread may call `ranked`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lists: dict[int, TrendingList] = {}
        self._ranked: tuple[TrendingPost, ...] | None = ()
        """None: a list has changed since."""

    def put(self, trending: TrendingList) -> None:
        """Replaces the partition's older list."""
        with self._lock:
            self._lists[trending.partition] = trending
            self._ranked = None

    def newest_us(self) -> Micros | None:
        """Of when the newest list is. None if there is none."""
        with self._lock:
            return max((trending.as_of_us for trending in self._lists.values()), default=None)

    def ranked(self) -> tuple[TrendingPost, ...]:
        """All posts by (-score, post id). The scores of older lists are decayed to the time of the newest list. Ranked
        once for each change of a list."""
        with self._lock:
            if self._ranked is None:
                self._ranked = _rank(list(self._lists.values()))
            return self._ranked


def _rank(lists: Sequence[TrendingList]) -> tuple[TrendingPost, ...]:
    """`activity` is keyed by member, so one post may be in the lists of several partitions. Its scores are added."""
    newest_us = max((trending.as_of_us for trending in lists), default=0)
    totals: dict[PostId, float] = {}
    for trending in lists:
        halvings = (newest_us - trending.as_of_us) / (trending.half_life_s * 1e6)
        weight = 0.5 ** min(halvings, _MAX_HALVINGS)
        for entry in trending.entries:
            totals[entry.post_id] = totals.get(entry.post_id, 0.0) + entry.score * weight
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return tuple(TrendingPost(post_id, score) for post_id, score in ranked)
