"""Which posts a made-up feed thinks of for a session, before it ranks them.

Shapes: S sessions, C candidates of each. An index may be of a post that must not be shown; the caller looks.
"""

from typing import Final

import numpy as np

from nearline.demo.made_feed.people import NOBODY, People
from nearline.demo.made_feed.posts import Posts, draw_interests
from nearline.demo.made_feed.shape import Ints, Numbers
from nearline.demo.subjects import SUBJECTS

_FOLLOWED: Final = 10
_OF_INTEREST: Final = 8
_ACTED_ON_OF_INTEREST: Final = 14
_ACTED_ON: Final = 10
_NEW: Final = 4
_LATELY: Final = 20_000
"""What others acted on is drawn from so many of the newest positive actions."""


class Candidates:
    def __init__(self, people: People, posts: Posts, rng: np.random.Generator) -> None:
        self._people, self._posts, self._rng = people, posts, rng
        self._by_author = _Newest(posts.author, posts.created_s, len(people))
        self._by_subject = _Newest(posts.subject, posts.created_s, len(SUBJECTS))
        self._positives: Ints = np.empty(0, dtype=np.int64)
        self._positives_by_subject: Ints = self._positives

    def add_positives(self, posts: Ints) -> None:
        """These posts were acted on, each as often as it is named."""
        self._positives = np.concatenate([self._positives, posts])[-_LATELY:]
        order = np.argsort(self._posts.subject[self._positives], kind="stable")
        self._positives_by_subject = self._positives[order]

    def draw(self, members: Ints, at_s: Numbers) -> Ints:
        """(S, C)"""
        parts = (
            self._followed(members, at_s),
            self._of_interest(members, at_s),
            self._acted_on_of_interest(members, at_s),
            self._acted_on(members),
            self._new(at_s),
        )
        return np.concatenate(parts, axis=1)

    def _followed(self, members: Ints, at_s: Numbers) -> Ints:
        """Of authors whom the member followed at first."""
        shape_SC = len(members), _FOLLOWED
        slots_SC = self._rng.integers(0, self._people.follows.shape[1], shape_SC)
        authors_SC = self._people.follows[members[:, None], slots_SC]
        back_SC = self._rng.geometric(0.5, shape_SC) - 1
        newest_SC = self._by_author(np.maximum(authors_SC, 0), at_s[:, None], back_SC)
        return np.where(authors_SC == NOBODY, self._random_new(at_s, _FOLLOWED), newest_SC)

    def _of_interest(self, members: Ints, at_s: Numbers) -> Ints:
        """About what the member cares for, the newer the likelier."""
        shape_SC = len(members), _OF_INTEREST
        subjects_SC = self._subjects(members, at_s, _OF_INTEREST)
        back_SC = self._rng.exponential(self._by_subject.per_day, shape_SC).astype(np.int64)
        return self._by_subject(subjects_SC, at_s[:, None], back_SC)

    def _acted_on_of_interest(self, members: Ints, at_s: Numbers) -> Ints:
        subjects_SC = self._subjects(members, at_s, _ACTED_ON_OF_INTEREST)
        if not len(self._positives):
            return self._by_subject(subjects_SC, at_s[:, None], np.zeros_like(subjects_SC))
        subject = self._posts.subject[self._positives_by_subject]
        first = np.searchsorted(subject, np.arange(len(SUBJECTS) + 1))
        low, high = first[subjects_SC], first[subjects_SC + 1]
        places = low + (self._rng.random(subjects_SC.shape) * (high - low)).astype(np.int64)
        return self._positives_by_subject[np.minimum(places, len(self._positives) - 1)]

    def _acted_on(self, members: Ints) -> Ints:
        shape_SC = len(members), _ACTED_ON
        if not len(self._positives):
            return np.zeros(shape_SC, dtype=np.int64)
        drawn: Ints = self._positives[self._rng.integers(0, len(self._positives), shape_SC)]
        return drawn

    def _new(self, at_s: Numbers) -> Ints:
        return self._random_new(at_s, _NEW)

    def _random_new(self, at_s: Numbers, num: int) -> Ints:
        """Of about the last six hours."""
        newest_S = np.searchsorted(self._posts.created_s, at_s)
        per_quarter_day = len(self._posts) * 6 * 3600 / self._posts.created_s[-1]
        back_SC = self._rng.exponential(per_quarter_day, (len(at_s), num)).astype(np.int64)
        new_SC: Ints = np.maximum(newest_S[:, None] - 1 - back_SC, 0)
        return new_SC

    def _subjects(self, members: Ints, at_s: Numbers, num: int) -> Ints:
        """(S, `num`)"""
        repeated = np.repeat(members, num)
        subjects, _ = draw_interests(self._people, repeated, np.repeat(at_s, num), self._rng)
        return subjects.reshape(len(members), num)


class _Newest:
    """Posts by some group, each group's in the order of time."""

    def __init__(self, group_P: Ints, created_s: Numbers, num_groups: int) -> None:
        self._order = np.argsort(group_P, kind="stable")  # posts are in the order of time already
        self._span_s = created_s[-1] + 1
        self._keys = group_P[self._order] * self._span_s + created_s[self._order]
        self._first = np.searchsorted(group_P[self._order], np.arange(num_groups + 1))
        self.per_day = len(group_P) / num_groups * 24 * 3600 / self._span_s

    def __call__(self, groups: Ints, at_s: Numbers, back: Ints) -> Ints:
        """Of each group the post that was the newest one then, or so many before it."""
        place = np.searchsorted(self._keys, groups * self._span_s + np.minimum(at_s, self._span_s - 1)) - 1 - back
        first = np.minimum(self._first[groups], len(self._order) - 1)
        posts: Ints = self._order[np.maximum(place, first)]
        return posts
