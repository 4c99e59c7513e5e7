"""The trending lists: one per partition of `activity`, merged into one order. Knows neither Kafka nor the tiers."""

from threading import Lock
from typing import Final, NamedTuple

from schemas.ids import PostId
from schemas.trending import TrendingList

_MAX_HALVINGS: Final = 1000.0
"""2^-1000 is still a float above zero: an old list keeps its order."""


class TrendingPost(NamedTuple):
    post_id: PostId
    score: float


class TrendingLists:
    """The newest list of each partition. The hot feed's thread puts them in; any thread reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lists: dict[int, TrendingList] = {}

    def put(self, trending: TrendingList) -> None:
        """Takes the place of what the partition said before."""
        with self._lock:
            self._lists[trending.partition] = trending

    def ranked(self) -> list[TrendingPost]:
        """All posts by (-score, post id). Scores are as of the newest list, to which the others decay.

        A post is in the lists of several partitions, because `activity` is keyed by member: its scores add up.
        """
        with self._lock:
            lists = list(self._lists.values())
        newest_us = max((one.as_of_us for one in lists), default=0)
        totals: dict[PostId, float] = {}
        for one in lists:
            halvings = (newest_us - one.as_of_us) / (one.half_life_s * 1e6)
            weight = 0.5 ** min(halvings, _MAX_HALVINGS)
            for entry in one.entries:
                totals[entry.post_id] = totals.get(entry.post_id, 0.0) + entry.score * weight
        ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        return [TrendingPost(post_id, score) for post_id, score in ranked]
