"""Rows of the hot tier on the device, filled with random vectors, searched, and changed at a steady rate.

A chunk of rows is made from its number, so that brute force can make it again.

Shapes: K rows of a chunk, D dimensions, B queries.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gpu.run import Run
from benchmarks.kit.background import in_background
from benchmarks.kit.hot_load import BATCH
from indexer.hot.matrix.device_rows import DeviceRows
from indexer.hot.matrix.matrix import Fields, ScanFilter, ScannedSlots, ScanQuery
from indexer.hot.slots import Slots
from indexer.tiers import Numbers
from schemas.ids import Micros

_AUTHORS: Final = 50_000
_LANGUAGES: Final = 4
_WANTED_LANGUAGES: Final = 3
"""Three of four posts pass."""
_EXCLUDED: Final = 50
"""Posts that a query leaves out: those that its member has seen."""
_SPARE: Final = 1 << 14
"""Rows beyond the posts, for upserts."""
_CHANGING: Final = 1 << 20
"""So many of the posts are replaced, again and again."""
_LOOKED_AT: Final = 40
"""A row is cleared so many batches after its post has gone: no search looks at it then any more."""
_NOBODY: Final = np.empty(0, np.int32)


class FilledRows:
    """`lock` is held for what a tier does within its lock: taking a view, and flipping."""

    def __init__(self, run: Run, num_rows: int, dimension: int) -> None:
        self.num_rows = num_rows
        self.num_filled = 0
        self.lock = threading.Lock()
        self._device = run.device.name
        self._chunk = min(run.sizes.filled_rows, num_rows)
        self._k = run.sizes.k
        self.dimension = dimension
        self._rows: DeviceRows | None = None
        self._filter = ScanFilter(
            languages=np.arange(_WANTED_LANGUAGES, dtype=np.int32),
            created_after_us=Micros(num_rows // 10),
            created_before_us=None,
            exclude_authors=_NOBODY,
            only_authors=None,
            only_slots=None,
        )

    @property
    def rows(self) -> DeviceRows:
        assert self._rows is not None
        return self._rows

    def close(self) -> None:
        self._rows = None

    def fill(self) -> None:
        self._rows = DeviceRows(self.dimension, self.num_rows, self._device)
        self._rows.reserve(self.num_rows + _SPARE)
        for first in range(0, self.num_rows, self._chunk):
            slots = self._slots(first)
            self._rows.put(slots, self._vectors(first).cpu().numpy(), _fields(slots))
            self._rows.flipping(slots, np.empty(0, np.int64))()
            self.num_filled += len(slots)

    def queries(self, count: int) -> list[ScanQuery]:
        """All with the same filter, and other posts and authors that they leave out."""
        rng = np.random.default_rng(count)
        vectors_BD = rng.standard_normal((count, self.dimension)).astype(np.float32)
        vectors_BD /= np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return [
            ScanQuery(
                vector,
                self._k,
                self._filter,
                excluded=np.unique(rng.integers(0, self.num_rows, _EXCLUDED)),
                excluded_authors=rng.integers(0, _AUTHORS, 1).astype(np.int32),
            )
            for vector in vectors_BD
        ]

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        with self.lock:
            view = self.rows.view(self.num_rows + _SPARE)
        return view.scan(queries)

    def brute_force(self, queries: Sequence[ScanQuery], k: int) -> list[ScannedSlots]:
        """The best k that pass, from scores in float32."""
        queries_BD = torch.from_numpy(np.stack([query.vector_D for query in queries])).to(self._device)
        scores, slots = [], []
        for first in range(0, self.num_rows, self._chunk):
            of_chunk = self._slots(first)
            scores_BK = queries_BD @ self._vectors(first).T
            scores_BK.masked_fill_(torch.from_numpy(~self._passing(queries, of_chunk)).to(self._device), -torch.inf)
            best = torch.topk(scores_BK, min(k, len(of_chunk)))
            scores.append(best.values)
            slots.append(best.indices + first)
        all_scores, all_slots = torch.cat(scores, 1), torch.cat(slots, 1)
        best = torch.topk(all_scores, k)
        found = all_slots.gather(1, best.indices).cpu().numpy()
        return [ScannedSlots(found[row], best.values[row].cpu().numpy()) for row in range(len(queries))]

    def _passing(self, queries: Sequence[ScanQuery], slots: Slots) -> np.ndarray:
        """(B, K)"""
        fields = _fields(slots)
        shared = (fields.language < _WANTED_LANGUAGES) & (fields.created_at_us > self.num_rows // 10)
        passing = np.tile(shared, (len(queries), 1))
        for row, query in zip(passing, queries, strict=True):
            own = slice(*np.searchsorted(query.excluded, [slots[0], slots[-1] + 1]))
            row[query.excluded[own] - slots[0]] = False
            for author in query.excluded_authors:
                row[fields.author == author] = False
        return passing

    def _slots(self, first: int) -> Slots:
        return np.arange(first, min(first + self._chunk, self.num_rows))

    def _vectors(self, first: int) -> torch.Tensor:
        """(K, D), of length one, on the device."""
        generator = torch.Generator(self._device).manual_seed(first)
        shape = len(self._slots(first)), self.dimension
        return F.normalize(torch.randn(shape, generator=generator, device=self._device), dim=1)


class Upserts:
    """Replaces posts at a steady rate, in a thread of its own, in batches as the hot feed gets them."""

    def __init__(self, filled: FilledRows, rate: int) -> None:
        self._filled = filled
        self._rate = rate
        self._sent = 0
        self._seconds = 0.0
        self._error: Exception | None = None

    @property
    def per_second(self) -> float:
        if self._error is not None:
            raise self._error
        return self._sent / self._seconds

    def running(self) -> AbstractContextManager[None]:
        return in_background(self._run)

    def _run(self, stop: threading.Event) -> None:
        try:
            self._replace_posts(stop)
        except Exception as error:
            self._error = error

    def _replace_posts(self, stop: threading.Event) -> None:
        rows, num_rows = self._filled.rows, self._filled.num_rows
        rng = np.random.default_rng(0)
        vectors = rng.standard_normal((BATCH, self._filled.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        free = np.arange(num_rows, num_rows + _SPARE)
        held = np.arange(min(num_rows, _CHANGING))
        gone: deque[Slots] = deque()
        start = time.perf_counter()
        while not stop.wait(max(0.0, start + self._sent / self._rate - time.perf_counter())):
            replaced = np.unique(rng.integers(0, len(held), BATCH))
            new, free = free[: len(replaced)], free[len(replaced) :]
            rows.put(new, vectors[: len(new)], _fields(new))
            flip = rows.flipping(new, held[replaced])
            with self._filled.lock:
                flip()
            gone.append(held[replaced])
            held[replaced] = new
            if len(gone) > _LOOKED_AT:
                rows.clear(gone[0])
                free = np.concatenate([free, gone.popleft()])
            self._sent += len(new)
        self._seconds = time.perf_counter() - start


def _fields(slots: Slots) -> Fields:
    """A post's number is its time."""
    authors: Numbers = (slots * 7919 % _AUTHORS).astype(np.int32)
    return Fields(slots.astype(np.int64), authors, (slots % _LANGUAGES).astype(np.int32))
