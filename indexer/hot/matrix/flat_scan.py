"""Scans the vectors of the hot tier on the CPU: one product of a tile of rows with all queries of a batch, by numpy.

A product with eight queries takes twice as long as with one. FAISS's index takes eight times as long for eight, and
torch's product is as fast as numpy's. Rows of a filter that few rows pass are gathered, and the others are not read.

Shapes: S slots, D dimensions, R rows of a tile, B queries, P positions: the rows that a job scans, in their order.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from indexer.hot.matrix.blocks import BLOCK, Blocks
from indexer.hot.matrix.top_k import Best, Candidates, Mask, Tile, guess_bounds
from indexer.hot.slots import Slots
from indexer.tiers import Scores
from schemas.embeddings import Vector

_TILE_SCORES: Final = 1 << 19
"""Scores of a tile, 2 MB: they are still in the processor's cache when the best are picked."""
_GATHERED_ROWS: Final = 8192
"""Rows that are gathered at once."""
_SAMPLED_ROWS: Final = 2048
_SMALL: Final = 4
"""If there are at most so many times k rows, guessing a bound does not pay."""
_NO_BOUND: Final = np.array([-np.inf], np.float32)


class Job:
    """Queries that scan the same rows."""

    def __init__(
        self,
        blocks: Blocks,
        *,
        vectors: Sequence[Vector],
        ks: Sequence[int],
        excluded: Sequence[Slots],
        masks: Sequence[Mask],
        mask_of: Sequence[int],
        rows: Slots | None = None,
    ) -> None:
        """`masks`: each (S,), or (P,) with `rows`; `mask_of` says which of them each query has. `rows`: sorted slots;
        None: all. `excluded`: for each query, sorted slots that are never its hits."""
        self._blocks = blocks
        self._vectors_BD = np.ascontiguousarray(np.stack(vectors), np.float32)
        self._masks = masks
        self._mask_of_B = np.array(mask_of, np.intp)
        self._rows = rows
        self._num_positions = len(masks[0])
        self._excluded_slots = excluded
        self._excluded = self._keys([self.positions(slots) for slots in excluded])
        self.ks = ks

    def positions(self, slots: Slots) -> Slots:
        """Of those slots that the job scans."""
        if self._rows is None:
            return slots[slots < self._num_positions]
        if not len(self._rows):
            return self._rows
        at: Slots = np.minimum(np.searchsorted(self._rows, slots), len(self._rows) - 1)
        found: Slots = at[self._rows[at] == slots]
        return found

    def slots(self, positions: Slots) -> Slots:
        return positions if self._rows is None else self._rows[positions]

    def tiles(self) -> list[tuple["Job", int, int]]:
        """The job with the first and the last position, plus one, of each of its tiles."""
        size = _GATHERED_ROWS if self._rows is not None else min(BLOCK, _power_of_two(_TILE_SCORES // len(self.ks)))
        firsts = range(0, self._num_positions, size)
        return [(self, first, min(first + size, self._num_positions)) for first in firsts]

    def tile(self, first: int, last: int, buffer: Scores) -> Tile:
        """`buffer` will hold the scores."""
        num_queries = len(self.ks)
        flat = buffer[: (last - first) * num_queries]
        scores_RB = flat.reshape(-1, num_queries)
        np.matmul(self._vectors(first, last), self._vectors_BD.T, out=scores_RB)
        excluded = slice(*np.searchsorted(self._excluded, [first * num_queries, last * num_queries]))
        flat[self._excluded[excluded] - first * num_queries] = -np.inf
        return Tile(scores_RB, first, [mask[first:last] for mask in self._masks], self._mask_of_B)

    def guessed_bounds(self, sample: npt.NDArray[np.float64]) -> Scores:
        """(B,). `sample`: numbers between 0 and 1, sorted: where the sampled rows stand among all."""
        if self._num_positions <= max(self.ks) * _SMALL:
            return np.full(len(self.ks), -np.inf, np.float32)
        positions = (sample * self._num_positions).astype(np.int64)
        scores_NB = self._blocks.gather(self.slots(positions)) @ self._vectors_BD.T
        allowed = [mask[positions] for mask in self._masks]
        return guess_bounds(scores_NB, [allowed[mask] for mask in self._mask_of_B], self.ks, self._num_positions)

    def too_few(self, best: Sequence[Best], bounds_B: Scores) -> list[int]:
        """The queries of which fewer than k scores were above the guessed bound."""
        return [
            query
            for query, (found, k, bound) in enumerate(zip(best, self.ks, bounds_B.tolist(), strict=True))
            if len(found.scores) < k and bound > -np.inf
        ]

    def alone(self, query: int) -> "Job":
        """A job of this query only."""
        return Job(
            self._blocks,
            vectors=[self._vectors_BD[query]],
            ks=[self.ks[query]],
            excluded=[self._excluded_slots[query]],
            masks=[self._masks[self._mask_of_B[query]]],
            mask_of=[0],
            rows=self._rows,
        )

    def _vectors(self, first: int, last: int) -> Vector:
        if self._rows is not None:
            return self._blocks.gather(self._rows[first:last])
        return self._blocks.between(first, last)

    def _keys(self, excluded: Sequence[Slots]) -> Slots:
        """Where the excluded scores are, if the scores of all rows lay one after the other."""
        keys = [positions * len(excluded) + query for query, positions in enumerate(excluded)]
        return np.sort(np.concatenate(keys))


_JobTile = tuple[Job, int, int]
_Found = dict[Job, Candidates]


class Scanner:
    """Any thread may scan, also several at the same time."""

    def __init__(self, threads: int) -> None:
        self._threads = threads = min(threads, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads - 1, "hot-scan") if threads > 1 else None
        self._buffers: list[Scores] = []
        self._sample = np.sort(np.random.default_rng(0).random(_SAMPLED_ROWS))
        # numpy's library for products would otherwise use every core for one search.
        ThreadpoolController().select(user_api="blas").limit(limits=1)

    def scan(self, jobs: Sequence[Job]) -> list[list[Best]]:
        """For each job, for each of its queries the best positions."""
        bounds = {job: job.guessed_bounds(self._sample) for job in jobs}
        best = {job: found.best() for job, found in self._run(bounds).items()}
        # A guess that was too high is rare: once in some ten thousand searches.
        for job in jobs:
            for query in job.too_few(best[job], bounds[job]):
                alone = job.alone(query)
                best[job][query] = self._run({alone: _NO_BOUND})[alone].best()[0]
        return [best[job] for job in jobs]

    def _run(self, bounds: Mapping[Job, Scores]) -> _Found:
        """Scans with all threads."""
        tiles = [tile for job in bounds for tile in job.tiles()]
        work = iter(tiles)
        num_others = min(self._threads, len(tiles)) - 1 if self._pool else 0
        others = [self._pool.submit(self._work, bounds, work) for _ in range(num_others)] if self._pool else []
        found = self._work(bounds, work)
        for other in others:
            for job, candidates in other.result().items():
                found[job].merge(candidates)
        return found

    def _work(self, bounds: Mapping[Job, Scores], tiles: Iterator[_JobTile]) -> _Found:
        buffer = self._buffers.pop() if self._buffers else np.empty(_TILE_SCORES, np.float32)
        found = {job: Candidates(job.ks, job_bounds) for job, job_bounds in bounds.items()}
        for job, first, last in tiles:
            found[job].add(job.tile(first, last, buffer))
        self._buffers.append(buffer)
        return found


def _power_of_two(number: int) -> int:
    """The highest one that is not above the number."""
    return 1 << (number.bit_length() - 1)
