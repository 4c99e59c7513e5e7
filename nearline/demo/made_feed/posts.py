"""The posts of a made-up feed: when, by whom, about what, how good. Arrays over posts, in the order of their creation.

Owns what a post is; its words are in `texts`. Shapes: P posts.
"""

from dataclasses import dataclass

import numpy as np

from nearline.demo.made_feed import shape
from nearline.demo.made_feed.people import NOBODY, People
from nearline.demo.made_feed.shape import FeedSize, Ints, Numbers
from nearline.demo.subjects import SUBJECTS


@dataclass(frozen=True)
class Posts:
    created_s: Numbers
    """(P,): in seconds since the feed began, rising."""
    deleted_s: Numbers
    """(P,): inf for a post that stays."""
    updated_s: Numbers
    """(P,): when it gets another text; inf for most."""
    author: Ints
    subject: Ints
    theme: Ints
    language: Ints
    quality: Numbers

    def __len__(self) -> int:
        return len(self.author)


def make_posts(size: FeedSize, people: People, rng: np.random.Generator) -> Posts:
    num, end_s = size.posts, size.days * shape.DAY_S
    created_s = np.sort(moments(rng.random(num), size.days))
    author = rng.choice(len(people), num, p=people.authorship)
    subject, theme = draw_interests(people, author, created_s, rng)
    anything = rng.random(num) < 0.1
    subject = np.where(anything, rng.integers(0, len(SUBJECTS), num), subject)
    theme = np.where(rng.random(num) < 0.3, rng.integers(0, shape.THEMES, num), theme)
    rest = np.sqrt(1 - shape.AUTHOR_QUALITY**2)
    return Posts(
        created_s,
        _some(shape.DELETED, created_s, end_s, rng),
        _some(shape.UPDATED, created_s, end_s, rng),
        author,
        subject,
        theme,
        people.language[author],
        shape.AUTHOR_QUALITY * people.quality[author] + rest * rng.normal(size=num),
    )


def draw_interests(people: People, members: Ints, at_s: Numbers, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """For each of these one of the member's interests at that time: subject and theme."""
    subjects, themes = people.subjects_at(members, at_s), people.themes_at(members, at_s)
    second = (rng.random(len(members)) >= shape.MAIN_INTEREST) & (subjects[:, 1] != NOBODY)
    rows = np.arange(len(members))
    return subjects[rows, second.astype(np.int64)], themes[rows, second.astype(np.int64)]


def moments(uniform: Numbers, days: float) -> Numbers:
    """Seconds since the feed began. More happens by day than by night."""
    grid_s = np.linspace(0, days * shape.DAY_S, round(days * 24) + 1)
    passed = grid_s / shape.DAY_S - 0.7 * np.sin(2 * np.pi * grid_s / shape.DAY_S) / (2 * np.pi)
    at_s: Numbers = np.interp(uniform * passed[-1], passed, grid_s)
    return at_s


def _some(share: float, created_s: Numbers, end_s: float, rng: np.random.Generator) -> Numbers:
    """For a share of the posts a later moment, soon after they were made; inf for the others."""
    later_s = created_s + rng.exponential(shape.DAY_S, len(created_s)) + 1
    return np.where((rng.random(len(created_s)) < share) & (later_s < end_s), later_s, np.inf)
