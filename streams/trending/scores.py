"""Scores the posts of one partition of `activity`: each action adds its weight, and a score halves every half-life.

Pure arithmetic in memory. Knows neither Kafka nor Faust nor the clock.
"""

import heapq
from typing import Final

from schemas.events import Action
from schemas.ids import Micros, Partition, PostId
from schemas.trending import TrendingEntry, TrendingList
from streams.settings import TrendingSettings

WEIGHTS: Final[dict[Action, float]] = {
    # The system shows a post, not the member, so an impression says nothing about the post.
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
"""Posts in memory for each post in the list, so that a post below the list can still climb into it."""
_MAX_DOUBLINGS: Final = 500.0
"""An action this many half-lives after the landmark would weigh 2^500. The landmark then moves up to it, long before a
float overflows at 2^1024."""
_NEGLIGIBLE: Final = 1e-3
"""A score below this is a single view of ten half-lives ago."""


class TrendingScores:
    """The scores of one partition, in units of a fixed time, the *landmark*.

    Decay works the other way round: instead of halving all scores after each half-life, a new action weighs twice as
    much. With a half-life of an hour, a like (weight 4) at the landmark adds 4 and a like an hour later adds 8. A list
    is divided by the weight of its own time: an hour after the landmark these two likes count 2 and 4. So no stored
    score has to change as time passes, and two posts never change their order by time alone.
    """

    def __init__(self, partition: Partition, settings: TrendingSettings) -> None:
        self.partition = partition
        self._size = settings.size
        self._half_life_us = settings.half_life_s * 1e6
        self._landmark_us: int | None = None
        self._scores: dict[PostId, float] = {}
        self.changed = False
        """Whether an action was added since the list was last taken or loaded. If not, all that has changed is time."""

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, post_id: PostId, action: Action, at_us: Micros) -> bool:
        """False if such an action has no weight."""
        weight = WEIGHTS[action]
        if weight:
            self._add(post_id, weight, at_us)
        return bool(weight)

    def load(self, stored: TrendingList) -> None:
        """Adds the scores of a list that was written before. They count as of the list's time, so that its half-life
        may differ from this one's."""
        for entry in stored.entries:
            self._add(entry.post_id, entry.score, stored.as_of_us)
        self.changed = False

    def take_list(self, now_us: Micros) -> TrendingList:
        """The best posts as of now, best first. Forgets posts that are too low to climb into the list any more."""
        scale = self._scale(now_us)
        floor = _NEGLIGIBLE * scale
        # A negative score is kept: if it were forgotten, the next like would bring a hidden post into the list.
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
        scale = self._scale(at_us)  # may move the landmark and change the stored scores
        self._scores[post_id] = self._scores.get(post_id, 0.0) + weight * scale
        self.changed = True

    def _scale(self, at_us: Micros) -> float:
        """How much an action of weight 1 at that time adds to a stored score: 1 at the landmark, 2 a half-life
        later."""
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
