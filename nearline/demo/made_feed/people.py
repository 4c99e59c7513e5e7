"""The members of a made-up feed: what they care about, when they are there, and whom they follow.

Arrays over members. Owns who somebody is; what a member then does is in `sessions`. Shapes: M members, F followed.
"""

from dataclasses import dataclass

import numpy as np

from nearline.demo.made_feed import shape
from nearline.demo.made_feed.shape import FeedSize, Flags, Ints, Numbers
from nearline.demo.subjects import SUBJECTS

NOBODY = -1


@dataclass(frozen=True)
class People:
    first_subjects: Ints
    """(M, 2): the interests, the main one first; NOBODY where there is only one."""
    first_themes: Ints
    """(M, 2)"""
    final_subjects: Ints
    final_themes: Ints
    changes_s: Numbers
    """(M,): from then on, in seconds since the feed began, the final ones count."""
    language: Ints
    reads: Flags
    """(M, L)"""
    has_profile: Flags
    says_change: Flags
    joins_s: Numbers
    """(M,): when the profile is written."""
    acts_from_s: Numbers
    """(M,): never before; later than `joins_s` for those who only look on."""
    busyness: Numbers
    """(M,): sums to 1."""
    authorship: Numbers
    """(M,): how much of all posts it writes; sums to 1, mostly 0."""
    quality: Numbers
    """(M,): of what it writes."""
    follows: Ints
    """(M, F): authors whom it follows when the feed begins; NOBODY where it follows fewer."""

    def __len__(self) -> int:
        return len(self.language)

    def subjects_at(self, members: Ints, at_s: Numbers) -> Ints:
        """(…, 2)"""
        return np.where(self._changed(members, at_s), self.final_subjects[members], self.first_subjects[members])

    def themes_at(self, members: Ints, at_s: Numbers) -> Ints:
        """(…, 2)"""
        return np.where(self._changed(members, at_s), self.final_themes[members], self.first_themes[members])

    def _changed(self, members: Ints, at_s: Numbers) -> Flags:
        changed: Flags = (at_s >= self.changes_s[members])[..., None]
        return changed


def make_people(size: FeedSize, rng: np.random.Generator) -> People:
    num, end_s = size.members, size.days * shape.DAY_S
    first_subjects, first_themes = _interests(num, rng)
    changing = rng.random(num) < shape.CHANGING
    final_subjects, final_themes = _changed(first_subjects, first_themes, changing, rng)
    language = rng.choice(len(shape.LANGUAGES), num, p=shape.LANGUAGE_SHARES)
    reads = np.eye(len(shape.LANGUAGES), dtype=bool)[language]
    reads[:, 0] |= rng.random(num) < shape.READS_ENGLISH
    joins_s = np.where(rng.random(num) < shape.JOINING, rng.random(num) * 0.8 * end_s, 0.0)
    late = rng.random(num) < shape.LATE
    authorship = _heavy_tailed(num, rng) * (rng.random(num) < shape.AUTHORS) * (joins_s == 0) * ~late
    authorship[0] += not authorship.any()  # somebody writes, also where there are few members
    people = People(
        first_subjects,
        first_themes,
        final_subjects,
        final_themes,
        np.where(changing, rng.uniform(0.1, 0.7, num) * end_s, np.inf),
        language,
        reads,
        (rng.random(num) < shape.PROFILES) | late,
        rng.random(num) < shape.SAYS_CHANGE,
        joins_s,
        np.where(late, np.maximum(joins_s, shape.LATE_FROM * end_s), joins_s),
        _shares(_heavy_tailed(num, rng)),
        _shares(authorship),
        rng.normal(size=num),
        np.full((num, shape.FOLLOWED), NOBODY),
    )
    people.follows[:] = _followed(people, rng)
    return people


def _interests(num: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Subjects and themes, (M, 2) each. Some subjects are cared for more than others."""
    popularity = _shares(1 / (np.arange(len(SUBJECTS)) + 4.0) ** 0.5)
    subjects = rng.choice(len(SUBJECTS), (num, 2), p=rng.permutation(popularity))
    alone = (rng.random(num) >= shape.TWO_INTERESTS) | (subjects[:, 0] == subjects[:, 1])
    subjects[alone, 1] = NOBODY
    return subjects, rng.integers(0, shape.THEMES, (num, 2))


def _changed(subjects: Ints, themes: Ints, changing: Flags, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The second interest stays, and becomes the main one, before a new one; who had none has only the new one."""
    new_subjects, new_themes = _interests(len(subjects), rng)
    final_subjects = np.where(changing[:, None], np.stack([subjects[:, 1], new_subjects[:, 0]], 1), subjects)
    final_themes = np.where(changing[:, None], np.stack([themes[:, 1], new_themes[:, 0]], 1), themes)
    alone = final_subjects[:, 0] == NOBODY
    final_subjects[alone], final_themes[alone] = final_subjects[alone, ::-1], final_themes[alone, ::-1]
    final_subjects[final_subjects[:, 0] == final_subjects[:, 1], 1] = NOBODY
    return final_subjects, final_themes


def _followed(people: People, rng: np.random.Generator) -> Ints:
    """(M, F): mostly authors who write about what the member cares for, the well-known ones more often."""
    num, slots = people.follows.shape
    order, first, total = _by_subject(people)
    main, second = people.first_subjects[:, [0]], people.first_subjects[:, [1]]
    subject = np.where((rng.random((num, slots)) >= shape.MAIN_INTEREST) & (second != NOBODY), second, main)
    # `total` grows over all authors in this order: an author of a subject is one draw between the subject's ends.
    draws = rng.random((num, slots))
    low, high = total[first[subject]], total[first[subject + 1]]
    anybody = (rng.random((num, slots)) < 0.2) | (high <= low)
    draws = np.where(anybody, draws, low + draws * (high - low))
    authors = order[np.clip(np.searchsorted(total, draws, side="right") - 1, 0, num - 1)]
    how_many = rng.integers(0, slots + 1, (num, 1))
    authors[(np.arange(slots) >= how_many) | (authors == np.arange(num)[:, None])] = NOBODY
    return authors


def _by_subject(people: People) -> tuple[Ints, Ints, Numbers]:
    """Members by their main interest; where each subject begins in this order, (subjects + 1,); and the authorship of
    all before each, (M + 1,)."""
    main = people.first_subjects[:, 0]
    order = np.argsort(main, kind="stable")
    first = np.searchsorted(main[order], np.arange(len(SUBJECTS) + 1))
    return order, first, np.concatenate([[0.0], np.cumsum(people.authorship[order])])


def _heavy_tailed(num: int, rng: np.random.Generator) -> Numbers:
    return rng.lognormal(0.0, 1.3, num)


def _shares(weights: Numbers) -> Numbers:
    shares: Numbers = weights / weights.sum()
    return shares
