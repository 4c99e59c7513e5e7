"""Draws the batches: groups of posts that have one owner, groups of one era, bounded by tokens and not by rows.

All batches are drawn from the seed before training begins, so a resumed training gets the same ones. Owns which rows
meet in a batch. Knows neither texts nor the model.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from trainer.data.dataset import NOBODY, Ints, Sequences, TrainingData
from trainer.settings import TrainSettings

_EMPTY: Final = Sequences(*(np.empty(0, dtype=np.int64) for _ in Sequences._fields))
_MIN_GROUP: Final = 2

_Batch = TypeVar("_Batch")


class TrainingRows:
    """The data set's rows, one kind after the other: of members, of authors, each post with the owner NOBODY, and of
    auxiliary tasks."""

    def __init__(self, data: TrainingData) -> None:
        all_posts = np.arange(len(data.texts))
        nobody = np.full(len(all_posts), NOBODY, dtype=np.int64)
        auxiliary = data.auxiliary.values()
        self.post = np.concatenate([data.acted.post, data.wrote.post, all_posts, *(rows.post for rows in auxiliary)])
        self.owner = np.concatenate([data.acted.owner, data.wrote.owner, nobody, *(rows.owner for rows in auxiliary)])
        self.first_wrote = len(data.acted.post)
        self.first_nobody = self.first_wrote + len(data.wrote.post)
        sizes = [self.first_nobody + len(all_posts), *(len(rows.post) for rows in auxiliary)]
        self.first_auxiliary = dict(zip(data.auxiliary, np.cumsum(sizes).tolist(), strict=False))


class _Owners:
    """The owners of one kind of sequence, and groups of their rows."""

    def __init__(self, sequences: Sequences, first_row: int) -> None:
        order = np.argsort(sequences.owner, kind="stable")
        owners, starts = np.unique(sequences.owner[order], return_index=True)
        self._rows_of: dict[int, Ints] = dict(zip(owners.tolist(), np.split(order, starts[1:]), strict=True))
        self._first_row = first_row
        self._at_us = sequences.at_us
        self._owner = sequences.owner
        sizes = {owner: len(rows) for owner, rows in self._rows_of.items()}
        self._usable = np.array([sizes[owner] >= _MIN_GROUP for owner in sequences.owner.tolist()], dtype=bool)
        self._usable_at_us = sequences.at_us[self._usable]

    def draw_time(self, recency: float, rng: np.random.Generator) -> int:
        return int(self._usable_at_us[int(len(self._usable_at_us) * rng.random() ** (1 / recency))])

    def around(self, at_us: int, era: int) -> tuple[Ints, Ints]:
        """The usable owners around this time, and for each of them one of its rows."""
        middle = int(np.searchsorted(self._at_us, at_us))
        start = max(0, min(middle - era // 2, len(self._at_us) - era))
        rows = np.flatnonzero(self._usable[start : start + era]) + start
        owners, firsts = np.unique(self._owner[rows], return_index=True)
        return owners, rows[firsts]

    def draw_group(self, owner: int, anchor: int, nearby: int, size: int, rng: np.random.Generator) -> Ints:
        """Up to `size` rows of the data set, drawn from the `nearby` rows that the owner has around the anchor."""
        rows = self._rows_of[owner]
        middle = int(np.searchsorted(rows, anchor)) + int(rng.integers(-nearby // 2, nearby // 2 + 1))
        start = max(0, min(middle - nearby // 2, len(rows) - nearby))
        near = rows[start : start + nearby]
        return rng.choice(near, min(size, len(near)), replace=False) + self._first_row


class BatchDrawer:
    """Draws batches until their tokens are used up."""

    def __init__(self, data: TrainingData, rows: TrainingRows, lengths: Ints, settings: TrainSettings) -> None:
        """`lengths`: the tokens of each post as training sees it, and then of the parts."""
        self._data = data
        self._rows = rows
        self._lengths = lengths
        self._settings = settings
        self._acted = _Owners(data.acted, 0)
        self._wrote = _Owners(data.wrote, rows.first_wrote)
        self._auxiliary = {
            name: _Owners(sequences, rows.first_auxiliary[name]) for name, sequences in data.auxiliary.items()
        }

    def batches(self, tokens: int, seed: int) -> list[list[int]]:
        """At least one batch of each task; the tasks' batches are evenly mixed."""
        of_weight_one, main = tokens_of_weight_one(tokens, self._settings), self._settings.main
        main_batches = (
            self._draw_all(self._main_batch, main * of_weight_one, np.random.default_rng(seed)) if main else []
        )
        return mixed([main_batches, *self.auxiliary_batches(of_weight_one, seed)])

    def auxiliary_batches(self, of_weight_one: float, seed: int) -> list[list[list[int]]]:
        """For each task its batches. `of_weight_one`: the tokens of a task of weight 1."""
        tasks = []
        for number, (name, weight) in enumerate(self._settings.tasks.items(), 1):
            draw_batch = partial(self._auxiliary_batch, self._auxiliary[name])
            tasks.append(self._draw_all(draw_batch, of_weight_one * weight, np.random.default_rng((seed, number))))
        return tasks

    def _draw_all(
        self,
        draw_batch: Callable[[np.random.Generator], tuple[list[int], int]],
        tokens: float,
        rng: np.random.Generator,
    ) -> list[list[int]]:
        batches: list[list[int]] = []
        used = 0
        while not batches or used + self._settings.batch_tokens <= tokens:
            rows, num_tokens = draw_batch(rng)
            batches.append(rows)
            used += num_tokens
        return batches

    def num_posts(self, batches: Sequence[Sequence[int]]) -> int:
        """How many posts are encoded; a post that is in a batch twice is encoded once."""
        return sum(len(np.unique(self._rows.post[batch])) for batch in batches)

    def num_tokens(self, batches: Sequence[Sequence[int]]) -> int:
        return sum(int(self._lengths[np.unique(self._rows.post[batch])].sum()) for batch in batches)

    def _main_batch(self, rng: np.random.Generator) -> tuple[list[int], int]:
        at_us = self._acted.draw_time(self._settings.recency, rng)
        groups = self._groups(self._main_owners(at_us, rng), rng)
        return self._fill_batch(self._with_negatives(rows, owner, rng) for owner, rows in groups)

    def _auxiliary_batch(self, owners: _Owners, rng: np.random.Generator) -> tuple[list[int], int]:
        at_us = owners.draw_time(self._settings.recency, rng)
        anchors = _shuffled(owners.around(at_us, self._settings.era), rng)
        return self._fill_batch(rows for _, rows in self._groups(((owners, *anchor) for anchor in anchors), rng))

    def _groups(
        self, anchors: Iterable[tuple[_Owners, int, int]], rng: np.random.Generator
    ) -> Iterator[tuple[int, Ints]]:
        for owners, owner, anchor in anchors:
            yield owner, owners.draw_group(owner, anchor, self._settings.nearby, self._settings.group, rng)

    def _fill_batch(self, groups: Iterable[Ints]) -> tuple[list[int], int]:
        """The rows of as many groups as there is room for, and their tokens."""
        batch: list[int] = []
        posts: set[int] = set()
        num_tokens = 0
        for rows in groups:
            new = {int(post) for post in self._rows.post[rows]} - posts
            new_tokens = int(self._lengths[list(new)].sum())
            if batch and num_tokens + new_tokens > self._settings.batch_tokens:
                break
            batch += rows.tolist()
            posts |= new
            num_tokens += new_tokens
        return batch, num_tokens

    def _main_owners(self, at_us: int, rng: np.random.Generator) -> Iterator[tuple[_Owners, int, int]]:
        """Members and authors around this time, each once. All members are equally likely, however much they did; so
        are all authors."""
        queues = {
            owners: _shuffled(owners.around(at_us, self._settings.era), rng) for owners in (self._acted, self._wrote)
        }
        while any(queues.values()):
            owners = self._wrote if rng.random() < self._settings.author_share else self._acted
            if not queues[owners]:
                owners = self._acted if owners is self._wrote else self._wrote
            yield owners, *queues[owners].pop()

    def _with_negatives(self, rows: Ints, owner: int, rng: np.random.Generator) -> Ints:
        """Adds rows of NOBODY to a group: first posts that were shown to the member, then posts of the same time."""
        num = self._settings.negatives
        at_us = int(self._data.created_us[self._rows.post[rows]].max())
        shown = self._data.shown.get(owner, _EMPTY)
        shown_near = shown.post[np.argsort(np.abs(shown.at_us - at_us))[: 4 * num]]
        newest = int(np.searchsorted(self._data.created_us, at_us, side="right"))
        recent = rng.integers(max(0, newest - self._settings.era), newest, size=2 * num)
        owned = self._data.owned[owner]
        negatives = [int(post) for post in (*rng.permutation(shown_near), *recent) if int(post) not in owned]
        of_nobody = np.array(list(dict.fromkeys(negatives))[:num], dtype=np.int64) + self._rows.first_nobody
        return np.concatenate([rows, of_nobody])


def tokens_of_weight_one(tokens: int, settings: TrainSettings) -> float:
    """How many of all tokens a task of weight 1 gets."""
    return tokens / (settings.main + sum(settings.tasks.values()))


def mixed(tasks: Sequence[list[_Batch]]) -> list[_Batch]:
    """All tasks' batches in one list, those of each task at even distances."""
    order = sorted(
        ((index + 0.5) / len(batches), task, index)
        for task, batches in enumerate(tasks)
        for index in range(len(batches))
    )
    return [tasks[task][index] for _, task, index in order]


def _shuffled(owners: tuple[Ints, Ints], rng: np.random.Generator) -> list[tuple[int, int]]:
    return [(int(owners[0][at]), int(owners[1][at])) for at in rng.permutation(len(owners[0]))]


class FixedBatches(DefaultBatchSampler):
    """Gives sentence-transformers' trainer the batches that are drawn already, each with its own number of rows."""

    def __init__(self, batches: list[list[int]], dataset: Any, **options: Any) -> None:
        # With n devices each takes every n-th batch; the last batches are left out where they are too few for all.
        super().__init__(dataset, batch_size=1, drop_last=True)
        # With a batch size accelerate would leave out every batch that has another number of rows.
        self.batch_size = None  # type: ignore[assignment]
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
