"""The data set: posts that belong together because one member acted on them, or one author wrote them.

A row is one post in one such sequence. Owns which rows there are; `batches` says which rows meet in a batch.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.events import Activity
from schemas.ids import Micros, PostId
from trainer.data.auxiliary_tasks import task_rows
from trainer.data.feed import Feed
from trainer.data.replay import replay_until
from trainer.errors import BadEvents
from trainer.settings import TaskName

Ints = npt.NDArray[np.int64]
NOBODY: Final = -1
"""The owner of a row that is only ever a negative."""
_SHOWN: Final = ("impression", "view", "hide", "dwell")
"""Actions that say that a member saw a post."""


class Sequences(NamedTuple):
    """Rows in the order of their time. `owner` is the number of a member, of an author, or of what the texts of an
    auxiliary task have in common."""

    post: Ints
    owner: Ints
    at_us: Ints


class TrainingData(NamedTuple):
    """All that may be learned from: events before the cut, and posts that are not deleted at the cut."""

    cut_us: Micros
    texts: list[str]
    """The posts' texts, in the order of their creation; a post's number is its index."""
    created_us: Ints
    acted: Sequences
    wrote: Sequences
    owned: dict[int, set[int]]
    """For each owner all the posts of its sequence."""
    shown: dict[int, Sequences]
    """For members: the posts that they saw and did not act on."""
    auxiliary: dict[TaskName, Sequences]
    parts: list[str]
    """Texts of auxiliary tasks that are not a whole post; they are numbered after the posts."""

    @property
    def counts(self) -> dict[str, int]:
        members = len(np.unique(self.acted.owner))
        return {"posts": len(self.texts), "positives": len(self.acted.post), "members": members}


def training_data(feed: Feed, cut_us: Micros, tasks: Collection[TaskName] = ()) -> TrainingData:
    """Raises BadEvents when there is nothing to learn from."""
    replay = replay_until(feed, cut_us)
    live_posts = {post_id for post_id, row in replay.posts.items() if row.body is not None}
    posts = sorted(
        (post for post in feed.posts.values() if post.post_id in live_posts and post.created_at_us < cut_us),
        key=lambda post: post.created_at_us,
    )
    number_of = {post.post_id: number for number, post in enumerate(posts)}
    owners = _OwnerNumbers()
    acted = _sequences(
        (number_of[positive.post_id], owners["member", positive.member_id], positive.at_us)
        for positive in feed.positives
        if positive.at_us < cut_us
        and positive.post_id in number_of
        and not replay.member(positive.member_id).state.deleted
    )
    wrote = _sequences(
        (number_of[post.post_id], owners["author", post.author_id], post.created_at_us) for post in posts
    )
    texts = [post.text for post in posts]
    created_us = np.array([post.created_at_us for post in posts], dtype=np.int64)
    auxiliary, parts = _auxiliary(tasks, texts, created_us, owners)
    owned = _owned(acted, wrote, *auxiliary.values())
    shown = _shown(feed, cut_us, number_of, owners)
    data = TrainingData(cut_us, texts, created_us, acted, wrote, owned, shown, auxiliary, parts)
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
    for name, rows in data.auxiliary.items():
        if (np.unique(rows.owner, return_counts=True)[1] >= 2).sum() < 2:
            raise BadEvents(f"the posts hold too little for the task {name}; take it out of tasks in the settings")


class _OwnerNumbers:
    """Numbers members, authors and what else texts have in common; the same events give the same numbers."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def __getitem__(self, owner: tuple[str, str]) -> int:
        """`owner`: its kind and its id."""
        return self._numbers.setdefault(owner, len(self._numbers))


def _auxiliary(
    tasks: Collection[TaskName], texts: Sequence[str], created_us: Ints, owners: _OwnerNumbers
) -> tuple[dict[TaskName, Sequences], list[str]]:
    """The tasks' rows, and the texts of the parts."""
    parts: dict[str, int] = {}
    sequences: dict[TaskName, Sequences] = {}
    for name in tasks:
        rows = []
        for post, owner, part in task_rows(name, texts):
            number = post if part is None else parts.setdefault(part, len(texts) + len(parts))
            rows.append((number, owners[name, owner], int(created_us[post])))
        sequences[name] = _sequences(rows)
    return sequences, list(parts)


def _sequences(rows: Iterable[tuple[int, int, int]]) -> Sequences:
    """From rows of post, owner and time. A post that an owner has several times counts once, at its first time."""
    first: dict[tuple[int, int], int] = {}
    for post, owner, at_us in rows:
        first.setdefault((post, owner), at_us)
    table = np.array([(at_us, owner, post) for (post, owner), at_us in first.items()], dtype=np.int64).reshape(-1, 3)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Sequences(table[:, 2], table[:, 1], table[:, 0])


def _owned(*all_sequences: Sequences) -> dict[int, set[int]]:
    owned: dict[int, set[int]] = defaultdict(set)
    for sequences in all_sequences:
        for post, owner in zip(sequences.post.tolist(), sequences.owner.tolist(), strict=True):
            owned[owner].add(post)
    return dict(owned)


def _shown(feed: Feed, cut_us: Micros, number_of: dict[PostId, int], owners: _OwnerNumbers) -> dict[int, Sequences]:
    acted = {(positive.member_id, positive.post_id) for positive in feed.positives}
    rows: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for timed in feed.before(cut_us):
        event = timed.event
        if not isinstance(event, Activity) or event.action not in _SHOWN or event.post_id not in number_of:
            continue
        if (event.member_id, event.post_id) not in acted:
            owner = owners["member", event.member_id]
            rows[owner].append((number_of[PostId(event.post_id)], owner, timed.at_us))
    return {owner: _sequences(of_owner) for owner, of_owner in rows.items()}
