"""The data set: posts that belong together because one member acted on them, or one author wrote them.

A row is one post in one such sequence. Owns which rows there are; `batches` says which rows meet in a batch.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.contexts import PostContext
from schemas.events import Activity
from schemas.ids import MemberId, Micros, PostId
from trainer.data.auxiliary_tasks import Part, task_rows
from trainer.data.examples import SHOWN, Examples, find_examples
from trainer.data.feed import Feed
from trainer.data.quantile_tables import fit_history_ages, fit_quantile_tables
from trainer.data.replay import replay_until
from trainer.errors import BadEvents
from trainer.settings import TaskName

Ints = npt.NDArray[np.int64]
NOBODY: Final = -1
"""The owner of a row that is only ever a negative."""


class Sequences(NamedTuple):
    """Rows in the order of their time. `owner` is the number of a member, of an author, or of what the texts of an
    auxiliary task have in common."""

    post: Ints
    owner: Ints
    at_us: Ints


class PostPart(NamedTuple):
    """`post`: the number of the first post that has it."""

    post: int
    part: Part


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
    parts: list[PostPart]
    """What auxiliary tasks encode of posts; they are numbered after the posts."""
    tables: dict[str, list[float]] = {}  # noqa: RUF012 - never changed
    """The quantile tables, fitted on what was known just before the cut."""
    examples: Examples | None = None
    """None where prompts are of the texts alone."""

    @property
    def counts(self) -> dict[str, int]:
        members = len(np.unique(self.acted.owner))
        return {"posts": len(self.texts), "positives": len(self.acted.post), "members": members}


def training_data(
    feed: Feed, cut_us: Micros, tasks: Collection[TaskName] = (), *, example_negatives: int | None = None
) -> TrainingData:
    """`example_negatives`: examples are made too, with at least so many shown posts where there are any. Raises
    BadEvents when there is nothing to learn from."""
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
    owner_of = {MemberId(member_id): number for member_id, number in owners.of_kind("member").items()}
    wrote = _sequences(
        (number_of[post.post_id], owners["author", post.author_id], post.created_at_us) for post in posts
    )
    texts = [post.text for post in posts]
    created_us = np.array([post.created_at_us for post in posts], dtype=np.int64)
    auxiliary, parts = _auxiliary(tasks, posts, owners)
    owned = _owned(acted, wrote, *auxiliary.values())
    shown = _shown(feed, cut_us, number_of, owners)
    data = TrainingData(cut_us, texts, created_us, acted, wrote, owned, shown, auxiliary, parts)
    _check(data)
    tables = fit_quantile_tables(replay.posts.values())
    examples = None
    if example_negatives is not None:
        tables |= fit_history_ages(replay.context(member_id, cut_us) for member_id in owner_of)
        examples = find_examples(feed, cut_us, number_of, owner_of, example_negatives)
        if not examples.examples:
            raise BadEvents("no action is on a post that was there before it; give events with the times of the posts")
    return data._replace(tables=tables, examples=examples)


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

    def of_kind(self, kind: str) -> dict[str, int]:
        return {owner: number for (of_kind, owner), number in self._numbers.items() if of_kind == kind}


def _auxiliary(
    tasks: Collection[TaskName], posts: Sequence[PostContext], owners: _OwnerNumbers
) -> tuple[dict[TaskName, Sequences], list[PostPart]]:
    """The tasks' rows, and the parts. A part that several posts have is one, so that it is no negative of itself."""
    numbers: dict[Part, int] = {}
    parts: list[PostPart] = []
    sequences: dict[TaskName, Sequences] = {}
    for name in tasks:
        rows = []
        for row in task_rows(name, posts):
            number = numbers.setdefault(row.part, len(posts) + len(parts))
            if number == len(posts) + len(parts):
                parts.append(PostPart(row.post, row.part))
            rows.append((number, owners[name, row.owner], posts[row.post].created_at_us))
        sequences[name] = _sequences(rows)
    return sequences, parts


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
    """A post counts as not acted on if the member did not act on it before the cut: what it did later is held out."""
    acted = {(positive.member_id, positive.post_id) for positive in feed.positives if positive.at_us < cut_us}
    rows: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for timed in feed.before(cut_us):
        event = timed.event
        if not isinstance(event, Activity) or event.action not in SHOWN or event.post_id not in number_of:
            continue
        if (event.member_id, event.post_id) not in acted:
            owner = owners["member", event.member_id]
            rows[owner].append((number_of[PostId(event.post_id)], owner, timed.at_us))
    return {owner: _sequences(of_owner) for owner, of_owner in rows.items()}
