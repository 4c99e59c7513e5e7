"""Records for the hot tier: a full tier, changes at a steady rate, and small searches that show every pause."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

import numpy as np

from benchmarks.kit.background import in_background
from benchmarks.kit.vectors import draw, post
from indexer.tiers import Filters, HotQuery, HotRecord, HotTier
from schemas.embeddings import Vector
from schemas.ids import Micros, Offset, Partition

BATCH: Final = 200
"""The hot feed applies so many posts at once when it polls every 20 ms and 10,000 posts come in a second."""
SPACING_US: Final = 1000
"""Between two records."""
_PARTITIONS: Final = 8
_DRAWN: Final = 65_536
_PROBE_EVERY_S: Final = 0.001


class Records:
    """Record number n is of partition n % 8, and has the time n milliseconds."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self.num_records = 0

    def new_posts(self, count: int) -> Iterator[list[HotRecord]]:
        """Records of posts that were never there, in batches. Few of them exist at a time."""
        first = self.num_records
        for start in range(first, first + count, _DRAWN):
            rows = draw(min(_DRAWN, first + count - start), self._dimension, seed=start)
            for at in range(0, len(rows), BATCH):
                yield [self._record(start + at + n, row) for n, row in enumerate(rows[at : at + BATCH])]

    def changes(self, count: int, num_posts: int) -> list[list[HotRecord]]:
        """In batches. Every second record is of a new post, the others are new revisions of the newest posts."""
        rows = draw(count, self._dimension, seed=self.num_records)
        held = np.random.default_rng(self.num_records).integers(0, num_posts, count)
        newest = self.num_records - 1
        numbers = [self.num_records if n % 2 else newest - int(back) for n, back in enumerate(held)]
        records = [self._record(number, row) for number, row in zip(numbers, rows, strict=True)]
        return [records[first : first + BATCH] for first in range(0, count, BATCH)]

    def _record(self, number: int, row: Vector) -> HotRecord:
        """The post's number is that of the record that made it, so that its partition is the same again."""
        self.num_records += 1
        offset = Offset(self.num_records)
        embedding = post(number, row, created_at_us=number * SPACING_US, revision=self.num_records)
        return HotRecord(embedding, Partition(number % _PARTITIONS), offset, Micros(self.num_records * SPACING_US))


class Writer:
    """Applies batches of records at a steady rate, in its own thread."""

    def __init__(self, tier: HotTier, batches: Iterator[Sequence[HotRecord]], rate: int) -> None:
        self._tier = tier
        self._batches = batches
        self._rate = rate
        self._sent = 0
        self._seconds = 0.0

    @property
    def per_second(self) -> float:
        return self._sent / self._seconds

    def writing(self) -> AbstractContextManager[None]:
        return in_background(self._run)

    def finish(self) -> None:
        """Writes what is left, at the steady rate."""
        self._run(threading.Event())

    def _run(self, stop: threading.Event) -> None:
        start = time.perf_counter()
        sent = 0
        while not stop.wait(max(0.0, start + sent / self._rate - time.perf_counter())):
            batch = next(self._batches, None)
            if batch is None:
                break
            self._tier.apply(batch)
            sent += len(batch)
        self._sent += sent
        self._seconds += time.perf_counter() - start


class Probes:
    """Searches among a few posts, one after the other, in a thread of its own. Each takes a fraction of a millisecond
    unless something holds it up."""

    def __init__(self, tier: HotTier, dimension: int) -> None:
        only = frozenset(f"post-{number}" for number in range(10))
        self._query = HotQuery(draw(1, dimension)[0], 10, Filters(only_posts=only), np.empty(0, np.int32))
        self._tier = tier
        self.longest_s = 0.0

    def probing(self) -> AbstractContextManager[None]:
        return in_background(self._run)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_PROBE_EVERY_S):
            start = time.perf_counter()
            self._tier.search([self._query])
            self.longest_s = max(self.longest_s, time.perf_counter() - start)
