"""The matrix of the hot tier on the CPU, in numpy's arrays."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from indexer.hot.matrix.blocks import Blocks
from indexer.hot.matrix.filtering import passing, without_authors
from indexer.hot.matrix.flat_scan import Job, Scanner
from indexer.hot.matrix.host_rows import HostRows
from indexer.hot.matrix.matrix import Fields, ScanFilter, ScannedSlots, ScanQuery
from indexer.hot.matrix.top_k import Mask
from indexer.hot.slots import Slots

_SPARSE: Final = 8
"""If at most one slot in so many passes a filter, only the slots that pass are read."""


class FlatMatrix(HostRows):
    """Implements `Matrix`."""

    def __init__(self, dimension: int, threads: int) -> None:
        super().__init__(dimension)
        self._scanner = Scanner(threads)

    def view(self, num_slots: int) -> "FlatView":
        fields = self.columns.at(slice(num_slots))
        return FlatView(self.blocks, self.live[:num_slots].copy(), fields, self._scanner)

    def repair(self) -> None: ...


class FlatView:
    """Implements `View`."""

    def __init__(self, blocks: Blocks, live_S: Mask, fields: Fields, scanner: Scanner) -> None:
        self._blocks = blocks
        self._live_S = live_S
        self._fields = fields
        self._scanner = scanner

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        jobs = self._jobs(without_authors(queries, self._fields, np.asarray))
        scanned: list[ScannedSlots | None] = [None] * len(queries)
        for numbers, job, found in zip(jobs, jobs.values(), self._scanner.scan(list(jobs.values())), strict=True):
            for number, best in zip(numbers, found, strict=True):
                scanned[number] = ScannedSlots(job.slots(best.positions), best.scores)
        return [slots for slots in scanned if slots is not None]

    def _jobs(self, queries: Sequence[ScanQuery]) -> dict[tuple[int, ...], Job]:
        """By the numbers of their queries. All queries with filters that many slots pass are one job; those with
        another filter are a job of their own."""
        by_filter: dict[ScanFilter, list[int]] = {}
        for number, query in enumerate(queries):
            by_filter.setdefault(query.filter, []).append(number)
        masks: list[Mask] = []
        mask_of: dict[int, int] = {}
        jobs: dict[tuple[int, ...], Job] = {}
        for scan_filter, numbers in by_filter.items():
            mask, rows = self._selected(scan_filter)
            if rows is None:
                mask_of |= dict.fromkeys(numbers, len(masks))
                masks.append(mask)
            else:
                jobs[tuple(numbers)] = self._job(queries, dict.fromkeys(numbers, 0), [mask], rows)
        if masks:
            jobs[tuple(mask_of)] = self._job(queries, mask_of, masks, None)
        return jobs

    def _job(self, queries: Sequence[ScanQuery], mask_of: dict[int, int], masks: list[Mask], rows: Slots | None) -> Job:
        own = [queries[number] for number in mask_of]
        return Job(
            self._blocks,
            vectors=[query.vector_D for query in own],
            ks=[query.k for query in own],
            excluded=[query.excluded for query in own],
            masks=masks,
            mask_of=list(mask_of.values()),
            rows=rows,
        )

    def _selected(self, scan_filter: ScanFilter) -> tuple[Mask, Slots | None]:
        """The slots to read, sorted, None for all; and which of them pass."""
        only = scan_filter.only_slots
        if only is None:
            mask: Mask = passing(scan_filter, self._live_S, self._fields, np.asarray)
            if np.count_nonzero(mask) * _SPARSE > len(mask):
                return mask, None
            rows = np.flatnonzero(mask)
        else:
            rows = only[passing(scan_filter, self._live_S[only], self._fields.at(only), np.asarray)]
        return np.ones(len(rows), np.bool_), rows
