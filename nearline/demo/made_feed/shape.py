"""The numbers of the made-up feed, and its sizes. Plain data; where the shapes come from is said in the package's
docstring."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S


class FeedSize(NamedTuple):
    posts: int
    members: int
    activity: int
    """About how many activity events."""
    days: float
    """The feed begins this long before `now`."""


MEDIUM: Final = FeedSize(posts=20_000, members=10_000, activity=800_000, days=14.0)
LARGE: Final = FeedSize(posts=200_000, members=30_000, activity=2_000_000, days=30.0)

# Members.
AUTHORS: Final = 0.2
"""The share of members who write."""
PROFILES: Final = 0.93
"""The share of members with a profile."""
TWO_INTERESTS: Final = 0.5
CHANGING: Final = 0.3
"""The share of members whose interests change."""
SAYS_CHANGE: Final = 0.7
"""How often a member whose interests have changed says so in its profile."""
LATE: Final = 0.1
"""The share of members who only look on until the last part of the time: they have a profile and no history."""
LATE_FROM: Final = 0.86
JOINING: Final = 0.3
"""The share of members who come while the feed runs."""
MAIN_INTEREST: Final = 0.6
"""Of two interests the first one's share."""
LANGUAGES: Final = ("en", "es", "de")
LANGUAGE_SHARES: Final = (0.6, 0.22, 0.18)
READS_ENGLISH: Final = 0.5
"""How many members of another language also read English."""
THEMES: Final = 3
"""Each subject has as many themes: a member cares most for one of them, a post is about one."""
FOLLOWED: Final = 12
"""A member follows at most so many authors when the feed begins."""

# The chance that a member acts on a post that it looks at, as a logit.
BASE: Final = -3.8
INTEREST: Final = 2.5
SECOND_INTEREST: Final = 2.1
THEME: Final = 1.2
FOLLOWS: Final = 0.7
QUALITY: Final = 0.9
"""For each standard deviation."""
UNREADABLE: Final = -4.0
"""In a language that the member does not read."""
AGE_PER_DAY: Final = -0.9
AUTHOR_QUALITY: Final = 0.5
"""The correlation of a post's quality with its author's."""

# What is shown.
SHOWN_FOR_S: Final = 3 * DAY_S
"""Older posts are not shown."""
POSITIONS: Final = 12
REACHED: Final = 0.9
"""The share of members who go on from a position to the next."""
LOOK_POWER: Final = 0.4
"""A post at rank r that is reached is looked at with the chance r to the minus this power."""
RANKING_NOISE: Final = 1.5
"""The feed that ranks the posts knows the true logit with this error."""
POPULARITY: Final = 0.7
"""What the feed adds to a post's score for each power of e of its actions so far."""
STEPS: Final = 240
"""What is shown in one step follows from what happened before the step."""
EVENTS_PER_SESSION: Final = 9.0
"""About; see `tests/nearline/demo/test_made_feed.py`."""

# What members do with a post they look at: those who act, and those who do not.
ACTS: Final = {"click": 0.36, "like": 0.27, "dwell": 0.22, "comment": 0.08, "share": 0.05, "follow": 0.02}
READS_TOO: Final = 0.3
"""How many of those who act otherwise dwell on the post before."""
VIEWS: Final = 0.25
SHORT_DWELLS: Final = 0.1
HIDES: Final = 0.01
DWELL_MEDIAN_S: Final = 24.0
DWELL_SIGMA: Final = 0.8
POSITIVE_DWELL_S: Final = 10.0
"""A longer dwell is a positive action, a shorter one is not (`contexts.settings`)."""

# Changes.
DELETED: Final = 0.01
UPDATED: Final = 0.01
TITLES: Final = 0.4
"""The share of posts whose first line is a title."""
HASHTAGS: Final = 0.25
