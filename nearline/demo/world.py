"""Makes up a world of subjects, posts, members and activity, together with the truth about it.

    python -m nearline.demo.world --seed 7 --posts 6000 --members 600 > events.jsonl
    python -m nearline.demo.world --size large > events.jsonl

The larger sizes are of another world, `nearline.demo.made_feed`, which has what a feed has: impressions by position,
counts that grow, three languages. The command is in `nearline.demo.world_command`.

The same seed and sizes give the same events; only their times move with `now`. Owns what happens in the small world;
knows nothing of how events are sent or searched.
"""

import json
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final, NamedTuple, TextIO

from nearline.demo.subjects import ADJECTIVES, COMMON, HEADLINES, SENTENCES, SUBJECTS

Event = dict[str, Any]

SUBJECT_SHARE: Final = 0.52
"""The share of a post's words that come from its subject."""
SECOND_SUBJECT_SHARE: Final = 0.12
"""The share of words that come from a second subject. The rest are words that all subjects use."""
INTEREST_SHARE: Final = 0.85
"""The share of a member's activity that is about its interests. The rest is about any subject."""
MAX_POST_AGE: Final = timedelta(days=1)
"""Members act on posts that are at most this old."""

# How often each action happens, in percent, on a post about one of the member's interests and on any other post.
_ACTION_WEIGHTS_INTERESTED: Final = {
    "view": 28, "dwell": 20, "click": 18, "like": 15, "comment": 6, "share": 4, "follow": 2, "impression": 7,
}  # fmt: skip
_ACTION_WEIGHTS_OTHER: Final = {"impression": 52, "view": 32, "dwell": 6, "click": 4, "hide": 6}


class WorldSize(NamedTuple):
    posts: int = 6_000
    members: int = 600
    activity: int = 40_000
    """The number of attempts to act on a post. An attempt gives no event if no post is new enough, or the post is the
    member's own."""
    days: float = 7.0
    """The world begins this long before `now`."""


DEMO_SIZE: Final = WorldSize()


class Truth(NamedTuple):
    """The state of the world after its last event."""

    subject_of: dict[str, str]
    """The subject of every post, deleted ones too."""
    interests: dict[str, list[str]]
    """The final interests of every member."""
    former: dict[str, list[str]]
    """The first interests of the members whose interests have changed."""
    deleted_posts: list[str]
    deleted_members: list[str]


class World(NamedTuple):
    events: list[Event]
    """In the order of their times. The last one happens at `now` or shortly before."""
    truth: Truth


class _Member(NamedTuple):
    member_id: str
    first_interests: tuple[str, ...]
    final_interests: tuple[str, ...]
    changes_at: datetime
    """From this time on the member has its final interests."""

    def interests_at(self, moment: datetime) -> tuple[str, ...]:
        return self.final_interests if moment >= self.changes_at else self.first_interests


class _Post(NamedTuple):
    post_id: str
    author_id: str
    subject: str
    created_at: datetime


def make_world(seed: int, now: datetime, size: WorldSize = DEMO_SIZE) -> World:
    return _WorldMaker(seed, now, size).make()


class Writer:
    """Makes up texts about a subject. No two posts get the same text."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._subjects = sorted(SUBJECTS)
        self._words = {name: rng.sample(SUBJECTS[name], len(SUBJECTS[name])) for name in self._subjects}
        self._written: set[str] = set()

    def post_text(self, subject: str) -> str:
        second_subject = self._rng.choice(self._subjects)
        while (text := self._compose(subject, second_subject)) in self._written:
            pass
        self._written.add(text)
        return text

    def headline(self, subject: str) -> str:
        words = self._rng.sample(SUBJECTS[subject], 3)
        template = self._rng.choice(HEADLINES)
        return template.format(subject=subject, Subject=subject.capitalize(), a=words[0], b=words[1], c=words[2])

    def skills(self, subject: str) -> list[str]:
        return self._rng.sample(SUBJECTS[subject], 4)

    def _compose(self, subject: str, second_subject: str) -> str:
        sentences = self._rng.sample(SENTENCES, self._rng.choice((2, 2, 3, 3, 4)))
        return " ".join(self._fill(sentence, subject, second_subject) for sentence in sentences)

    def _fill(self, sentence: str, subject: str, second_subject: str) -> str:
        slots = {slot: self._word(subject, second_subject) for slot in "abcd"}
        text = sentence.format(**slots, adj=self._rng.choice(ADJECTIVES))
        return text[0].upper() + text[1:]

    def _word(self, subject: str, second_subject: str) -> str:
        draw = self._rng.random()
        if draw < SUBJECT_SHARE:
            return self._word_of(subject)
        if draw < SUBJECT_SHARE + SECOND_SUBJECT_SHARE:
            return self._word_of(second_subject)
        return self._rng.choice(COMMON)

    def _word_of(self, subject: str) -> str:
        """A word of the subject. Some words are picked more often than others."""
        words = self._words[subject]
        return words[int(len(words) * self._rng.random() ** 1.5)]


class _WorldMaker:
    def __init__(self, seed: int, now: datetime, size: WorldSize) -> None:
        self._rng = random.Random(seed)
        self._writer = Writer(self._rng)
        self._size = size
        self._now = now
        self._start = now - timedelta(days=size.days)
        self._subjects = sorted(SUBJECTS)
        self._events: list[tuple[datetime, int, Event]] = []

    def make(self) -> World:
        members = [self._add_member(number) for number in range(self._size.members)]
        posts = self._add_posts(members)
        self._add_activity(members, posts)
        deleted_posts = self._add_post_changes(posts)
        deleted_members = self._add_member_deletes(members)
        self._events.sort(key=lambda entry: entry[:2])
        truth = Truth(
            {post.post_id: post.subject for post in posts},
            {member.member_id: list(member.interests_at(self._now)) for member in members},
            {
                member.member_id: list(member.first_interests)
                for member in members
                if member.first_interests != member.final_interests
            },
            deleted_posts,
            deleted_members,
        )
        return World([event for _, _, event in self._events], truth)

    def _add(self, at: datetime, event: Event) -> None:
        self._events.append((at, len(self._events), event))

    def _random_time(self, first: datetime, last: datetime) -> datetime:
        return _whole_ms(first + (last - first) * self._rng.random())

    # Members

    def _add_member(self, number: int) -> _Member:
        """Adds the events of its profile, and returns the member."""
        first_interests = tuple(self._rng.sample(self._subjects, self._rng.choice((1, 2, 2, 3))))
        final_interests = self._changed(first_interests) if self._rng.random() < 0.3 else first_interests
        changes_at = self._random_time(self._start, self._start + (self._now - self._start) * 0.6)
        member = _Member(f"m{number:05d}", first_interests, final_interests, changes_at)
        if self._rng.random() < 0.93:  # the others have no profile
            self._add_profile(member, self._start)
            if final_interests != first_interests:
                self._add_profile(member, changes_at)
        return member

    def _changed(self, interests: tuple[str, ...]) -> tuple[str, ...]:
        """Drops the first interest and appends another subject: the second interest, if there is one, becomes the main
        one."""
        new = self._rng.choice([subject for subject in self._subjects if subject not in interests])
        return (*interests[1:], new)

    def _add_profile(self, member: _Member, at: datetime) -> None:
        interests = member.interests_at(at)
        main_interest = interests[0]
        event = {
            "type": "member.updated",
            "member_id": member.member_id,
            "headline": self._writer.headline(main_interest),
            "skills": [skill for subject in interests for skill in self._writer.skills(subject)],
            "industry": main_interest,
            "language": "en",
            "at": _rfc3339(at),
        }
        self._add(at, event)

    def _add_member_deletes(self, members: Sequence[_Member]) -> list[str]:
        """Deletes one member of a hundred. Returns their ids."""
        leaving = self._rng.sample(members, len(members) // 100)
        for member in leaving:
            self._add(self._now, {"type": "member.deleted", "member_id": member.member_id, "at": _rfc3339(self._now)})
        return [member.member_id for member in leaving]

    # Posts

    def _add_posts(self, members: Sequence[_Member]) -> list[_Post]:
        moments = sorted(self._random_time(self._start, self._now) for _ in range(self._size.posts))
        return [self._add_post(number, at, self._rng.choice(members)) for number, at in enumerate(moments)]

    def _add_post(self, number: int, at: datetime, author: _Member) -> _Post:
        subject = self._rng.choice(author.interests_at(at))
        post = _Post(f"p{number:06d}", author.member_id, subject, at)
        self._add(at, {"type": "post.created", **self._body_with_new_text(post)})
        return post

    def _body_with_new_text(self, post: _Post) -> Event:
        return {
            "post_id": post.post_id,
            "author_id": post.author_id,
            "text": self._writer.post_text(post.subject),
            "language": "en",
            "created_at": _rfc3339(post.created_at),
        }

    def _add_post_changes(self, posts: Sequence[_Post]) -> list[str]:
        """Updates three posts of a hundred, and deletes two of a hundred. Returns the ids of the deleted posts."""
        for post in self._rng.sample(posts, len(posts) * 3 // 100):
            at = self._random_time(post.created_at, self._now)
            self._add(at, {"type": "post.updated", **self._body_with_new_text(post), "at": _rfc3339(at)})
        removed = self._rng.sample(posts, len(posts) * 2 // 100)
        for post in removed:
            at = self._random_time(post.created_at, self._now)
            self._add(at, {"type": "post.deleted", "post_id": post.post_id, "at": _rfc3339(at)})
        return sorted(post.post_id for post in removed)

    # Activity

    def _add_activity(self, members: Sequence[_Member], posts: Sequence[_Post]) -> None:
        if not posts:
            return
        posts_of = _by_subject(posts)
        # Some members are busier than others.
        cumulative_weights = list(accumulate(1 / (rank + 3) ** 0.6 for rank in range(len(members))))
        for _ in range(self._size.activity):
            at = self._random_time(posts[0].created_at, self._now)
            (member,) = self._rng.choices(members, cum_weights=cumulative_weights)
            self._add_action(member, at, posts_of)

    def _add_action(self, member: _Member, at: datetime, posts_of: "dict[str, _PostsOfSubject]") -> None:
        """Adds one activity event, unless no post is new enough or the chosen post is the member's own."""
        by_interest = self._rng.random() < INTEREST_SHARE
        subject = self._rng.choice(member.interests_at(at) if by_interest else self._subjects)
        post = posts_of[subject].pick(at, self._rng) if subject in posts_of else None
        if post is None or post.author_id == member.member_id:
            return
        interested = subject in member.interests_at(at)
        weights = _ACTION_WEIGHTS_INTERESTED if interested else _ACTION_WEIGHTS_OTHER
        (action,) = self._rng.choices(list(weights), weights=list(weights.values()))
        event: Event = {"type": "activity", "member_id": member.member_id, "post_id": post.post_id, "action": action}
        if action == "dwell":
            median_s = 18.0 if interested else 2.0
            event["dwell_ms"] = int(self._rng.lognormvariate(0, 0.7) * median_s * 1000)
        self._add(at, {**event, "at": _rfc3339(at)})


class _PostsOfSubject:
    """The posts of one subject, ordered by time."""

    def __init__(self, posts: list[_Post]) -> None:
        self._posts = posts
        self._times = [post.created_at for post in posts]

    def pick(self, at: datetime, rng: random.Random) -> _Post | None:
        """A post that is at most MAX_POST_AGE old at this time; newer posts are picked more often. None if there is no
        such post."""
        start, end = bisect_right(self._times, at - MAX_POST_AGE), bisect_right(self._times, at)
        if start == end:
            return None
        return self._posts[end - 1 - int((end - start) * rng.random() ** 1.5)]


def _by_subject(posts: Sequence[_Post]) -> dict[str, _PostsOfSubject]:
    by_subject: dict[str, list[_Post]] = {}
    for post in posts:
        by_subject.setdefault(post.subject, []).append(post)
    return {subject: _PostsOfSubject(subject_posts) for subject, subject_posts in by_subject.items()}


def _whole_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_lines(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        yield json.dumps(event, ensure_ascii=False) + "\n"


def write_world(world: World, out: TextIO) -> None:
    out.writelines(json_lines(world.events))


if __name__ == "__main__":
    from nearline.demo.world_command import main

    main()
