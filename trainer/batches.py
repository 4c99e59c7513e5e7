"""Which rows meet in a batch: groups of one owner's posts, groups of one era, bounded by tokens and not by rows.

All batches are drawn beforehand from the seed: so a training that goes on after a kill sees the same ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from sentence_transformers.base.sampler import DefaultBatchSampler

from trainer.dataset import NOBODY, Ints, Sequences, TrainingData
from trainer.settings import TrainSettings

_NOTHING: Final = Sequences(*(np.empty(0, dtype=np.int64) for _ in Sequences._fields))


class Rows:
    """The data set's rows: those of the members, those of the authors, and each post for itself."""

    def __init__(self, data: TrainingData) -> None:
        self.acted = data.acted
        self.wrote = data.wrote
        self.post = np.concatenate([data.acted.post, data.wrote.post, np.arange(len(data.texts))])
        self.owner = np.concatenate(
            [data.acted.owner, data.wrote.owner, np.full(len(data.texts), NOBODY, dtype=np.int64)]
        )
        self.first_wrote = len(data.acted.post)
        self.first_alone = self.first_wrote + len(data.wrote.post)


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
        """`lengths`: tokens of each post as training sees it."""
        self._data = data
        self._rows = rows
        self._lengths = lengths
        self._settings = settings
        self._acted = _Pool(data.acted, 0, 2)
        self._wrote = _Pool(data.wrote, rows.first_wrote, 2)
        self._times = data.acted.at_us[self._acted.usable]

    def batches(self, tokens: int, seed: int) -> list[list[int]]:
        """At least one."""
        rng = np.random.default_rng(seed)
        found: list[list[int]] = []
        used = 0
        while not found or used + self._settings.batch_tokens <= tokens:
            batch, size = self._batch(rng)
            found.append(batch)
            used += size
        return found

    def posts(self, batches: Sequence[Sequence[int]]) -> int:
        """That are encoded: a post that is in a batch twice is encoded once."""
        return sum(len(np.unique(self._rows.post[batch])) for batch in batches)

    def tokens(self, batches: Sequence[Sequence[int]]) -> int:
        return sum(int(self._lengths[np.unique(self._rows.post[batch])].sum()) for batch in batches)

    def _batch(self, rng: np.random.Generator) -> tuple[list[int], int]:
        settings = self._settings
        at_us = int(self._times[int(len(self._times) * rng.random() ** (1 / settings.recency))])
        batch: list[int] = []
        posts: set[int] = set()
        tokens = 0
        for pool, owner, anchor in self._owners(at_us, rng):
            rows = pool.group(owner, anchor, settings.nearby, settings.group, rng)
            rows = self._with_negatives(rows, owner, rng)
            new = {int(post) for post in self._rows.post[rows]} - posts
            size = int(self._lengths[list(new)].sum())
            if batch and tokens + size > settings.batch_tokens:
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


def _shuffled(owners: tuple[Ints, Ints], rng: np.random.Generator) -> list[tuple[int, int]]:
    return [(int(owners[0][at]), int(owners[1][at])) for at in rng.permutation(len(owners[0]))]


class FixedBatches(DefaultBatchSampler):
    """For sentence-transformers' trainer: batches that are drawn already."""

    def __init__(self, batches: list[list[int]], dataset: Any, **options: Any) -> None:
        super().__init__(dataset, batch_size=1, drop_last=False)
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
