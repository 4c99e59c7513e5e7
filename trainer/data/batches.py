"""Which rows meet in a batch: groups of one owner's posts, groups of one era, bounded by tokens and not by rows.

All batches are drawn beforehand from the seed: so a training that goes on after a kill sees the same ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from trainer.data.dataset import NOBODY, Ints, Sequences, TrainingData
from trainer.settings import TrainSettings

_NOTHING: Final = Sequences(*(np.empty(0, dtype=np.int64) for _ in Sequences._fields))


class Rows:
    """The data set's rows: those of the members, of the authors, each post for itself, and those of further tasks."""

    def __init__(self, data: TrainingData) -> None:
        alone = np.arange(len(data.texts))
        nobody = np.full(len(alone), NOBODY, dtype=np.int64)
        further = data.further.values()
        self.post = np.concatenate([data.acted.post, data.wrote.post, alone, *(one.post for one in further)])
        self.owner = np.concatenate([data.acted.owner, data.wrote.owner, nobody, *(one.owner for one in further)])
        self.first_wrote = len(data.acted.post)
        self.first_alone = self.first_wrote + len(data.wrote.post)
        sizes = [self.first_alone + len(alone), *(len(one.post) for one in further)]
        self.first_further = dict(zip(data.further, np.cumsum(sizes).tolist(), strict=False))


class _Pool:
    """One kind of sequence: rows by owner, and the owners of an era."""

    def __init__(self, sequences: Sequences, first: int, least: int) -> None:
        order = np.argsort(sequences.owner, kind="stable")
        owners, starts = np.unique(sequences.owner[order], return_index=True)
        self._rows_of: dict[int, Ints] = dict(zip(owners.tolist(), np.split(order, starts[1:]), strict=True))
        self._first = first
        self._at_us = sequences.at_us
        self._owner = sequences.owner
        sizes = {owner: len(rows) for owner, rows in self._rows_of.items()}
        self.usable = np.array([sizes[owner] >= least for owner in sequences.owner.tolist()], dtype=bool)
        self._times = sequences.at_us[self.usable]

    def time(self, recency: float, rng: np.random.Generator) -> int:
        return int(self._times[int(len(self._times) * rng.random() ** (1 / recency))])

    def owners(self, at_us: int, era: int) -> tuple[Ints, Ints]:
        """Usable owners around this time, and for each a row of it to start from."""
        middle = int(np.searchsorted(self._at_us, at_us))
        start = max(0, min(middle - era // 2, len(self._at_us) - era))
        rows = np.flatnonzero(self.usable[start : start + era]) + start
        owners, firsts = np.unique(self._owner[rows], return_index=True)
        return owners, rows[firsts]

    def group(self, owner: int, anchor: int, nearby: int, size: int, rng: np.random.Generator) -> Ints:
        """Rows of the data set: some of those that the owner has around the anchor."""
        rows = self._rows_of[owner]
        middle = int(np.searchsorted(rows, anchor)) + int(rng.integers(-nearby // 2, nearby // 2 + 1))
        start = max(0, min(middle - nearby // 2, len(rows) - nearby))
        near = rows[start : start + nearby]
        return rng.choice(near, min(size, len(near)), replace=False) + self._first


class Draw:
    """Draws batches until their tokens are used up."""

    def __init__(self, data: TrainingData, rows: Rows, lengths: Ints, settings: TrainSettings) -> None:
        """`lengths`: tokens of each post as training sees it, and of the parts after them."""
        self._data = data
        self._rows = rows
        self._lengths = lengths
        self._settings = settings
        self._acted = _Pool(data.acted, 0, 2)
        self._wrote = _Pool(data.wrote, rows.first_wrote, 2)
        self._further = {name: _Pool(one, rows.first_further[name], 2) for name, one in data.further.items()}

    def batches(self, tokens: int, seed: int) -> list[list[int]]:
        """At least one of each task, evenly mixed."""
        weights = self._settings.tasks
        main = tokens / (1 + sum(weights.values()))
        tasks = [self._drawn(self._batch, main, np.random.default_rng(seed))]
        for number, (name, weight) in enumerate(weights.items(), 1):
            batch = partial(self._further_batch, self._further[name])
            tasks.append(self._drawn(batch, main * weight, np.random.default_rng((seed, number))))
        return _mixed(tasks)

    def _drawn(
        self, batch: Callable[[np.random.Generator], tuple[list[int], int]], tokens: float, rng: np.random.Generator
    ) -> list[list[int]]:
        found: list[list[int]] = []
        used = 0
        while not found or used + self._settings.batch_tokens <= tokens:
            rows, size = batch(rng)
            found.append(rows)
            used += size
        return found

    def posts(self, batches: Sequence[Sequence[int]]) -> int:
        """That are encoded: a post that is in a batch twice is encoded once."""
        return sum(len(np.unique(self._rows.post[batch])) for batch in batches)

    def tokens(self, batches: Sequence[Sequence[int]]) -> int:
        return sum(int(self._lengths[np.unique(self._rows.post[batch])].sum()) for batch in batches)

    def _batch(self, rng: np.random.Generator) -> tuple[list[int], int]:
        """Of the main task."""
        at_us = self._acted.time(self._settings.recency, rng)
        groups = self._groups(self._owners(at_us, rng), rng)
        return self._filled(self._with_negatives(rows, owner, rng) for owner, rows in groups)

    def _further_batch(self, pool: _Pool, rng: np.random.Generator) -> tuple[list[int], int]:
        at_us = pool.time(self._settings.recency, rng)
        owners = _shuffled(pool.owners(at_us, self._settings.era), rng)
        return self._filled(rows for _, rows in self._groups(((pool, *one) for one in owners), rng))

    def _groups(self, owners: Iterable[tuple[_Pool, int, int]], rng: np.random.Generator) -> Iterator[tuple[int, Ints]]:
        for pool, owner, anchor in owners:
            yield owner, pool.group(owner, anchor, self._settings.nearby, self._settings.group, rng)

    def _filled(self, groups: Iterable[Ints]) -> tuple[list[int], int]:
        """The rows of as many groups as there is room for, and their tokens."""
        batch: list[int] = []
        posts: set[int] = set()
        tokens = 0
        for rows in groups:
            new = {int(post) for post in self._rows.post[rows]} - posts
            size = int(self._lengths[list(new)].sum())
            if batch and tokens + size > self._settings.batch_tokens:
                break
            batch += rows.tolist()
            posts |= new
            tokens += size
        return batch, tokens

    def _owners(self, at_us: int, rng: np.random.Generator) -> Iterator[tuple[_Pool, int, int]]:
        """Each once, and every one as likely as any other, however much it did."""
        queues = {pool: _shuffled(pool.owners(at_us, self._settings.era), rng) for pool in (self._acted, self._wrote)}
        while any(queues.values()):
            pool = self._wrote if rng.random() < self._settings.author_share else self._acted
            if not queues[pool]:
                pool = self._acted if pool is self._wrote else self._wrote
            yield pool, *queues[pool].pop()

    def _with_negatives(self, rows: Ints, owner: int, rng: np.random.Generator) -> Ints:
        """Shown first; for the rest, posts of the same time."""
        wanted = self._settings.negatives
        at_us = int(self._data.created_us[self._rows.post[rows]].max())
        seen = self._data.shown.get(owner, _NOTHING)
        shown = seen.post[np.argsort(np.abs(seen.at_us - at_us))[: 4 * wanted]]
        newest = int(np.searchsorted(self._data.created_us, at_us, side="right"))
        recent = rng.integers(max(0, newest - self._settings.era), newest, size=2 * wanted)
        mine = self._data.owned[owner]
        fit = [int(post) for post in (*rng.permutation(shown), *recent) if int(post) not in mine]
        alone = np.array(list(dict.fromkeys(fit))[:wanted], dtype=np.int64) + self._rows.first_alone
        return np.concatenate([rows, alone])


def _mixed(tasks: Sequence[list[list[int]]]) -> list[list[int]]:
    """Batches of each at even distances."""
    order = sorted(((at + 0.5) / len(one), number, at) for number, one in enumerate(tasks) for at in range(len(one)))
    return [tasks[number][at] for _, number, at in order]


def _shuffled(owners: tuple[Ints, Ints], rng: np.random.Generator) -> list[tuple[int, int]]:
    return [(int(owners[0][at]), int(owners[1][at])) for at in rng.permutation(len(owners[0]))]


class FixedBatches(DefaultBatchSampler):
    """For sentence-transformers' trainer: batches that are drawn already, each of as many rows as it has."""

    def __init__(self, batches: list[list[int]], dataset: Any, **options: Any) -> None:
        # Of several devices each takes every n-th; the last are left out where they are too few for all.
        super().__init__(dataset, batch_size=1, drop_last=True)
        # accelerate would leave out every batch of another number of rows.
        self.batch_size = None  # type: ignore[assignment]
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
