"""What is learned from: posts that belong together because one member acted on them, or one author wrote them.

A row is one post in one such sequence. Owns which rows there are; which of them meet in a batch is in `batches`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.events import Activity
from schemas.ids import Micros, PostId
from trainer.data.auxiliary_tasks import task_rows
from trainer.data.feed import Feed, rows_at
from trainer.errors import BadEvents
from trainer.settings import TaskName

Ints = npt.NDArray[np.int64]
NOBODY: Final = -1
"""The owner of a row that is only ever a negative."""
_SHOWN: Final = ("impression", "view", "hide", "dwell")


class Sequences(NamedTuple):
    """Rows in the order of their time. `owner` numbers a member, an author or what a further task has texts share."""

    post: Ints
    owner: Ints
    at_us: Ints


class TrainingData(NamedTuple):
    """All that may be learned from: nothing of it is as late as the cut, and nothing deleted by then."""

    cut_us: Micros
    texts: list[str]
    """Of posts, in the order of their creation."""
    created_us: Ints
    acted: Sequences
    wrote: Sequences
    owned: dict[int, set[int]]
    """Of each owner all the posts of its sequence."""
    shown: dict[int, Sequences]
    """Of members: posts that they saw and did not act on."""
    further: dict[TaskName, Sequences]
    parts: list[str]
    """Texts of further tasks that are no whole posts, numbered after these."""

    @property
    def counts(self) -> dict[str, int]:
        members = len(np.unique(self.acted.owner))
        return {"posts": len(self.texts), "positives": len(self.acted.post), "members": members}


def training_data(feed: Feed, cut_us: Micros, tasks: Collection[TaskName] = ()) -> TrainingData:
    """Raises BadEvents when there is nothing to learn from."""
    rows = rows_at(feed, cut_us)
    bodies = {post_id: row.body for post_id, row in rows.posts.items() if row.body is not None}
    posts = sorted(
        (post for post in feed.posts.values() if post.post_id in bodies and post.created_at_us < cut_us),
        key=lambda post: post.created_at_us,
    )
    place = {post.post_id: number for number, post in enumerate(posts)}
    owners = _Owners()
    positives = [one for one in feed.positives if one.at_us < cut_us and one.post_id in place]
    living = [one for one in positives if not rows.member(one.member_id).state.deleted]
    acted = _sequences((place[one.post_id], owners["member", one.member_id], one.at_us) for one in living)
    wrote = _sequences((place[post.post_id], owners["author", post.author_id], post.created_at_us) for post in posts)
    texts = [post.text for post in posts]
    created_us = np.array([post.created_at_us for post in posts], dtype=np.int64)
    further, parts = _further(tasks, texts, created_us, owners)
    data = TrainingData(
        cut_us,
        texts,
        created_us,
        acted,
        wrote,
        _owned(acted, wrote, *further.values()),
        _shown(feed, cut_us, place, owners),
        further,
        parts,
    )
    _check(data)
    return data


def _check(data: TrainingData) -> None:
    members, sizes = np.unique(data.acted.owner, return_counts=True)
    if not len(members):
        raise BadEvents(
            "there is no positive action before the held out ones; give more events, or a smaller --holdout"
        )
    if (sizes >= 2).sum() < 2:
        raise BadEvents(
            "fewer than two members have two positive actions each before the held out ones; a model learns from how "
            "members differ: give events of more members"
        )
    for name, rows in data.further.items():
        if (np.unique(rows.owner, return_counts=True)[1] >= 2).sum() < 2:
            raise BadEvents(f"the posts hold too little for the task {name}; take it out of tasks in the settings")


class _Owners:
    """Numbers for members, authors and what else texts have in common, the same for the same events."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def __getitem__(self, owner: tuple[str, str]) -> int:
        return self._numbers.setdefault(owner, len(self._numbers))


def _further(
    tasks: Collection[TaskName], texts: Sequence[str], created_us: Ints, owners: _Owners
) -> tuple[dict[TaskName, Sequences], list[str]]:
    parts: dict[str, int] = {}
    found: dict[TaskName, Sequences] = {}
    for name in tasks:
        rows = []
        for post, owner, part in task_rows(name, texts):
            number = post if part is None else parts.setdefault(part, len(texts) + len(parts))
            rows.append((number, owners[name, owner], int(created_us[post])))
        found[name] = _sequences(rows)
    return found, list(parts)


def _sequences(rows: Iterable[tuple[int, int, int]]) -> Sequences:
    """Each post of an owner once, at the first time."""
    first: dict[tuple[int, int], int] = {}
    for post, owner, at_us in rows:
        first.setdefault((post, owner), at_us)
    table = np.array([(at_us, owner, post) for (post, owner), at_us in first.items()], dtype=np.int64).reshape(-1, 3)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Sequences(table[:, 2], table[:, 1], table[:, 0])


def _owned(*sequences: Sequences) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for one in sequences:
        for post, owner in zip(one.post.tolist(), one.owner.tolist(), strict=True):
            found[owner].add(post)
    return dict(found)


def _shown(feed: Feed, cut_us: Micros, place: dict[PostId, int], owners: _Owners) -> dict[int, Sequences]:
    acted = {(one.member_id, one.post_id) for one in feed.positives}
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for one in feed.before(cut_us):
        event = one.event
        if not isinstance(event, Activity) or event.action not in _SHOWN or event.post_id not in place:
            continue
        if (event.member_id, event.post_id) not in acted:
            owner = owners["member", event.member_id]
            found[owner].append((place[PostId(event.post_id)], owner, one.at_us))
    return {owner: _sequences(rows) for owner, rows in found.items()}
