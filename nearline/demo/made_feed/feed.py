"""A made-up feed as events and as truth: the same seed and size give the same feed; only its times move with `now`.

Owns the order in which it is made, and its lines of JSON. Knows nothing of how events are sent or learned from.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nearline.demo.made_feed.chance import Chance
from nearline.demo.made_feed.people import NOBODY, People, make_people
from nearline.demo.made_feed.posts import Posts, make_posts
from nearline.demo.made_feed.sessions import ACTIONS, Actions, Simulation
from nearline.demo.made_feed.shape import DAY_S, LANGUAGES, FeedSize, Ints, Numbers
from nearline.demo.made_feed.texts import SUBJECT_NAMES, Writer
from nearline.demo.world import Truth

_LINES_AT_ONCE: Final = 100_000


class MadeFeed(NamedTuple):
    start: datetime
    people: People
    posts: Posts
    actions: Actions
    chance: Chance
    """The truth. It takes numbers of members and posts, and seconds since `start`."""
    texts: list[str]
    new_texts: dict[int, str]
    """By post: of those that are updated."""
    profiles: list[tuple[float, int, dict[str, Any]]]
    """When, whose, what it says."""

    def lines(self) -> Iterator[str]:
        """The events as lines of JSON, in the order of their times."""
        entries = [*_post_entries(self), *_profile_entries(self)]
        entry_s = np.array([at_s for at_s, _ in entries])
        at_s = np.concatenate([entry_s, self.actions.at_s])
        order = np.argsort(at_s, kind="stable")
        for chunk in np.array_split(order, max(1, len(order) // _LINES_AT_ONCE)):
            times = _rfc3339(self.start, at_s[chunk])
            rows = chunk - len(entries)
            lines = iter(_action_lines(self.actions, rows[rows >= 0], times[rows >= 0].tolist()))
            for row, index, time in zip(rows.tolist(), chunk.tolist(), times.tolist(), strict=True):
                yield next(lines) if row >= 0 else _entry_line(entries[index][1], time)

    @property
    def truth(self) -> Truth:
        """As of the small world."""
        people, posts = self.people, self.posts
        final = [_names(subjects) for subjects in people.final_subjects.tolist()]
        first = [_names(subjects) for subjects in people.first_subjects.tolist()]
        return Truth(
            {post_id(number): SUBJECT_NAMES[subject] for number, subject in enumerate(posts.subject.tolist())},
            {member_id(number): names for number, names in enumerate(final)},
            {member_id(number): names for number, names in enumerate(first) if names != final[number]},
            [post_id(int(number)) for number in np.flatnonzero(np.isfinite(posts.deleted_s))],
            [],
        )


def make_feed(seed: int, now: datetime, size: FeedSize) -> MadeFeed:
    people_rng, posts_rng, acts_rng, texts_rng = np.random.default_rng(seed).spawn(4)
    people = make_people(size, people_rng)
    posts = make_posts(size, people, posts_rng)
    simulation = Simulation(size, people, posts, acts_rng)
    actions = simulation.run()
    writer = Writer(texts_rng)
    updated = np.flatnonzero(np.isfinite(posts.updated_s) & (posts.updated_s < posts.deleted_s))
    texts = writer.posts(posts.language, posts.subject, posts.theme)
    new_texts = writer.posts(posts.language[updated], posts.subject[updated], posts.theme[updated])
    start = now - timedelta(seconds=size.days * DAY_S)
    by_post = dict(zip(updated.tolist(), new_texts, strict=True))
    return MadeFeed(start, people, posts, actions, simulation.chance, texts, by_post, _profiles(people, writer))


def post_id(number: int) -> str:
    return f"p{number:06d}"


def member_id(number: int) -> str:
    return f"m{number:05d}"


def _profiles(people: People, writer: Writer) -> list[tuple[float, int, dict[str, Any]]]:
    """Everybody's first profile, and those of members who say that their interests have changed."""
    with_profile = np.flatnonzero(people.has_profile)
    changed = np.flatnonzero(people.has_profile & people.says_change & np.isfinite(people.changes_s))
    profiles = []
    for members, at_s in ((with_profile, people.joins_s), (changed, np.maximum(people.changes_s, people.joins_s + 1))):
        subjects, themes = people.subjects_at(members, at_s[members]), people.themes_at(members, at_s[members])
        bodies = writer.profiles(people.language[members], subjects, themes)
        profiles += list(zip(at_s[members].tolist(), members.tolist(), bodies, strict=True))
    return profiles


def _post_entries(feed: MadeFeed) -> Iterator[tuple[float, dict[str, Any]]]:
    """When, and the event without its time; `created_at` is in it where that is another one."""
    posts = feed.posts
    created = _rfc3339(feed.start, posts.created_s).tolist()
    for number, (at_s, author, language, text) in enumerate(
        zip(posts.created_s.tolist(), posts.author.tolist(), posts.language.tolist(), feed.texts, strict=True)
    ):
        body = {"post_id": post_id(number), "author_id": member_id(author), "language": LANGUAGES[language]}
        yield at_s, {"type": "post.created", **body, "text": text}
        if number in feed.new_texts:
            updated = {**body, "text": feed.new_texts[number], "created_at": created[number]}
            yield float(posts.updated_s[number]), {"type": "post.updated", **updated}
        if np.isfinite(posts.deleted_s[number]):
            yield float(posts.deleted_s[number]), {"type": "post.deleted", "post_id": post_id(number)}


def _profile_entries(feed: MadeFeed) -> Iterator[tuple[float, dict[str, Any]]]:
    for at_s, number, profile in feed.profiles:
        yield at_s, {"type": "member.updated", "member_id": member_id(number), **profile}


def _entry_line(event: dict[str, Any], time: str) -> str:
    name = "created_at" if event["type"] == "post.created" else "at"
    return json.dumps({**event, name: time}, ensure_ascii=False) + "\n"


def _action_lines(actions: Actions, rows: Ints, times: Sequence[str]) -> list[str]:
    columns = zip(
        actions.member[rows].tolist(),
        actions.post[rows].tolist(),
        [ACTIONS[code] for code in actions.action[rows].tolist()],
        (actions.dwell_s[rows] * 1000).astype(np.int64).tolist(),
        times,
        strict=True,
    )
    return [
        f'{{"type": "activity", "member_id": "{member_id(member)}", "post_id": "{post_id(post)}", "action": "{action}"'
        f'{_dwell_part(dwell_ms) if action == "dwell" else ""}, "at": "{time}"}}\n'
        for member, post, action, dwell_ms, time in columns
    ]


def _dwell_part(dwell_ms: int) -> str:
    return f', "dwell_ms": {dwell_ms}'


def _rfc3339(start: datetime, at_s: Numbers) -> npt.NDArray[np.str_]:
    """To milliseconds."""
    zero_ms = int(start.astimezone(UTC).timestamp() * 1000)
    moments = (zero_ms + np.floor(at_s * 1000).astype(np.int64)).astype("datetime64[ms]")
    return np.datetime_as_string(moments, unit="ms", timezone="UTC")


def _names(subjects: Sequence[int]) -> list[str]:
    return [SUBJECT_NAMES[subject] for subject in subjects if subject != NOBODY]
