"""Engagement of the posts in one partition of `activity`: weighted by action, halved every half-life.

Pure arithmetic in memory. Knows neither Kafka nor Faust nor the clock.
"""

import heapq
from typing import Final

from schemas.events import Action
from schemas.ids import Micros, Partition, PostId
from schemas.trending import TrendingEntry, TrendingList
from streams.settings import TrendingSettings

WEIGHTS: Final[dict[Action, float]] = {
    # Being shown is the system's doing, not the member's: it says nothing about the post.
    "impression": 0.0,
    "view": 1.0,
    "dwell": 2.0,
    "click": 2.0,
    "like": 4.0,
    "follow": 4.0,
    "comment": 6.0,
    "share": 8.0,
    # One member who hides a post outweighs one who shares it.
    "hide": -8.0,
}

KEPT_PER_LISTED: Final = 20
"""Posts in memory for each one in the list, so that a post below the list can still climb into it."""
_MAX_DOUBLINGS: Final = 500.0
"""Scores are kept in units of the landmark; past 2^500 of them the landmark moves up, long before a float overflows."""
_NEGLIGIBLE: Final = 1e-3
"""A score below this is a single view of ten half-lives ago."""


class TrendingScores:
    """One partition's scores, as of a landmark: a later action weighs more instead of all others weighing less.

    So nothing has to be touched for time to pass, and the order of two posts never changes by itself.
    """

    def __init__(self, partition: Partition, settings: TrendingSettings) -> None:
        self.partition = partition
        self._size = settings.size
        self._half_life_us = settings.half_life_s * 1e6
        self._landmark_us: int | None = None
        self._scores: dict[PostId, float] = {}
        self.changed = False
        """Whether the list would say more than time has passed since it was last taken."""

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, post_id: PostId, action: Action, at_us: Micros) -> None:
        weight = WEIGHTS[action]
        if weight:
            self._add(post_id, weight, at_us)

    def load(self, stored: TrendingList) -> None:
        """Goes on from a list that was written before. Its half-life may differ: the scores count as of its time."""
        for entry in stored.entries:
            self._add(entry.post_id, entry.score, stored.as_of_us)
        self.changed = False

    def take_list(self, now_us: Micros) -> TrendingList:
        """The best posts as of now, best first; forgets what can hardly climb into the list any more."""
        scale = self._scale(now_us)
        floor = _NEGLIGIBLE * scale
        # What was hidden more than liked stays, or the next like would forget it.
        self._scores = {post: score for post, score in self._scores.items() if abs(score) >= floor}
        ranked = self._best(self._size * KEPT_PER_LISTED)
        if len(self._scores) > self._size * KEPT_PER_LISTED:
            self._scores = dict(ranked)
        self.changed = False
        entries = [TrendingEntry(post, score / scale) for post, score in ranked[: self._size] if score > 0]
        return TrendingList(self.partition, now_us, self._half_life_us / 1e6, entries)

    def _best(self, count: int) -> list[tuple[PostId, float]]:
        return heapq.nsmallest(count, self._scores.items(), key=lambda item: (-item[1], item[0]))

    def _add(self, post_id: PostId, weight: float, at_us: Micros) -> None:
        scale = self._scale(at_us)  # may move the landmark, and the stored scores with it
        self._scores[post_id] = self._scores.get(post_id, 0.0) + weight * scale
        self.changed = True

    def _scale(self, at_us: Micros) -> float:
        """What one unit at that time is worth in units of the landmark."""
        if self._landmark_us is None:
            self._landmark_us = at_us
        doublings = (at_us - self._landmark_us) / self._half_life_us
        if doublings > _MAX_DOUBLINGS:
            self._move_landmark(at_us, doublings)
            return 1.0
        return float(2.0 ** max(doublings, -_MAX_DOUBLINGS))

    def _move_landmark(self, at_us: Micros, doublings: float) -> None:
        shrink = 2.0 ** -min(doublings, 1000.0)
        self._scores = {post: score * shrink for post, score in self._scores.items()}
        self._landmark_us = at_us
