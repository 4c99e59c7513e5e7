"""The true chance that a member acts on a post that it looks at.

The one formula of the made-up feed: the simulation draws from it, and whoever measures asks it. Knows no positions: how
often somebody looks at a post is the feed's doing. Shapes broadcast as in numpy.
"""

import numpy as np

from nearline.demo.made_feed import shape
from nearline.demo.made_feed.people import NOBODY, People
from nearline.demo.made_feed.posts import Posts
from nearline.demo.made_feed.shape import Flags, Ints, Numbers


class Follows:
    """Who follows whom since when."""

    def __init__(self, people: People) -> None:
        self._num = len(people)
        members, slots = np.nonzero(people.follows != NOBODY)
        self._keys = np.unique(members * self._num + people.follows[members, slots])
        self._since_s = np.full(len(self._keys), -np.inf)

    def add(self, members: Ints, authors: Ints, at_s: Numbers) -> None:
        keys, first = np.unique(members * self._num + authors, return_index=True)
        new = ~self._holds(keys, np.full(len(keys), np.inf))
        places = np.searchsorted(self._keys, keys[new])
        self._keys = np.insert(self._keys, places, keys[new])
        self._since_s = np.insert(self._since_s, places, at_s[first[new]])

    def __call__(self, members: Ints, authors: Ints, at_s: Numbers) -> Flags:
        return self._holds(members * self._num + authors, at_s)

    def _holds(self, keys: Ints, at_s: Numbers) -> Flags:
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        holds: Flags = (self._keys[places] == keys) & (self._since_s[places] < at_s)
        return holds


class Chance:
    def __init__(self, people: People, posts: Posts, follows: Follows) -> None:
        self._people = people
        self._posts = posts
        self._follows = follows

    def logit(self, members: Ints, posts: Ints, at_s: Numbers) -> Numbers:
        people, made = self._people, self._posts
        subjects, themes = people.subjects_at(members, at_s), people.themes_at(members, at_s)
        cares = subjects == made.subject[posts][..., None]
        interest = np.maximum(cares[..., 0] * shape.INTEREST, cares[..., 1] * shape.SECOND_INTEREST)
        theme = (cares & (themes == made.theme[posts][..., None])).any(-1)
        age_days = np.maximum(at_s - made.created_s[posts], 0.0) / shape.DAY_S
        logit: Numbers = (
            shape.BASE
            + interest
            + shape.THEME * theme
            + shape.QUALITY * made.quality[posts]
            + shape.FOLLOWS * self._follows(members, made.author[posts], at_s)
            + shape.UNREADABLE * ~people.reads[members, made.language[posts]]
            + shape.AGE_PER_DAY * age_days
        )
        return logit

    def __call__(self, members: Ints, posts: Ints, at_s: Numbers) -> Numbers:
        """Between 0 and 1. `members`, `posts`: their numbers; `at_s`: seconds since the feed began."""
        return chance_of(self.logit(members, posts, at_s))


def chance_of(logit: Numbers) -> Numbers:
    chance: Numbers = 1 / (1 + np.exp(-logit))
    return chance
