"""The search of a batch on a device: one product of a block with all queries in half precision, masks, the best of it.

Vectors are stored as two numbers in half precision, whose sum is as precise as a float32. A search multiplies with the
first ones, which is quick, and scores the best again with both.

Shapes: S slots, D dimensions, K slots of one call, R rows of a block, B queries, G groups, C candidates.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Final

import numpy as np
import torch

from indexer.hot.matrix.filtering import Move, passing, without_authors
from indexer.hot.matrix.matrix import Fields, ScanFilter, ScannedSlots, ScanQuery

GROUP: Final = 32
"""The k best rows are in the k groups with the best maxima. To look for these first is less work by this factor."""
_EXTRA_HITS: Final = 128
"""The scan in half precision returns so many more hits than k, because it orders close neighbours wrongly."""


class Block:
    """Rows that were allocated together. Their number is a multiple of GROUP."""

    def __init__(self, rows: int, dimension: int, device: str) -> None:
        self.high_RD = torch.zeros((rows, dimension), dtype=torch.float16, device=device)
        self.low_RD = torch.zeros((rows, dimension), dtype=torch.float16, device=device)

    def __len__(self) -> int:
        return len(self.high_RD)

    def put(self, rows: torch.Tensor, vectors_KD: torch.Tensor) -> None:
        high = vectors_KD.half()
        self.high_RD.index_copy_(0, rows, high)
        self.low_RD.index_copy_(0, rows, (vectors_KD - high.float()).half())

    def clear(self, rows: torch.Tensor) -> None:
        self.high_RD.index_fill_(0, rows, 0)
        self.low_RD.index_fill_(0, rows, 0)

    def exact_scores(self, rows_BC: torch.Tensor, queries_BD: torch.Tensor) -> torch.Tensor:
        """(B, C). Not a matrix product, because that may be set to less than float32 for the whole process."""
        vectors_BCD = self.high_RD[rows_BC].float() + self.low_RD[rows_BC].float()
        return (vectors_BCD * queries_BD[:, None]).sum(-1)


class DeviceView:
    """The slots as they were at one moment."""

    def __init__(
        self,
        in_stream: Callable[[], AbstractContextManager[object]],
        move: Move,
        blocks: Sequence[Block],
        live_S: torch.Tensor,
        fields: Fields,
    ) -> None:
        """S is a multiple of GROUP. `in_stream`: a context in which everything runs in the stream of those who write.
        `move` copies an array to the device."""
        self._in_stream = in_stream
        self._move = move
        self._blocks = blocks
        self._live_S = live_S
        self._fields = fields

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        by_filter: dict[ScanFilter, list[int]] = {}
        for number, query in enumerate(queries):
            by_filter.setdefault(query.filter, []).append(number)
        order = list(chain.from_iterable(by_filter.values()))
        with self._in_stream():
            queries = without_authors(queries, self._fields, self._move)
            masks = [(self._mask(scan_filter), len(numbers)) for scan_filter, numbers in by_filter.items()]
            scan = _Scan([queries[number] for number in order], self._move)
            first = 0
            for block in self._blocks:
                last = min(first + len(block), len(self._live_S))
                if first < last:
                    scan.add(block, first, [(mask[first:last], count) for mask, count in masks])
                first += len(block)
            found = dict(zip(order, scan.best(), strict=True))
        return [found[number] for number in range(len(queries))]

    def _mask(self, scan_filter: ScanFilter) -> torch.Tensor:
        mask: torch.Tensor = passing(scan_filter, self._live_S, self._fields, self._move)
        if scan_filter.only_slots is None:
            return mask
        only = torch.zeros_like(mask)
        only[self._move(scan_filter.only_slots)] = True
        return mask & only


class _Scan:
    def __init__(self, queries: Sequence[ScanQuery], move: Move) -> None:
        self._ks = [query.k for query in queries]
        self._num_candidates = max(self._ks) + _EXTRA_HITS
        self._queries_BD: torch.Tensor = move(np.stack([query.vector_D for query in queries]).astype(np.float32))
        self._half_BD = self._queries_BD.half()
        slots = np.concatenate([query.excluded for query in queries])
        of_query = np.repeat(np.arange(len(queries)), [len(query.excluded) for query in queries])
        by_slot = np.argsort(slots, kind="stable")
        self._excluded = slots[by_slot]
        self._excluded_slots: torch.Tensor = move(slots[by_slot])
        self._excluded_queries: torch.Tensor = move(of_query[by_slot])
        self._scores: list[torch.Tensor] = []
        self._slots: list[torch.Tensor] = []

    def add(self, block: Block, first: int, masks: Sequence[tuple[torch.Tensor, int]]) -> None:
        """`first`: the slot of the block's first row. `masks`: each (R,), and for how many queries it stands, in the
        order of the queries."""
        num_rows = len(masks[0][0])
        scores_BR = self._half_BD @ block.high_RD[:num_rows].T
        query = 0
        for mask, count in masks:
            scores_BR[query : query + count].masked_fill_(~mask, -torch.inf)
            query += count
        own = slice(*np.searchsorted(self._excluded, [first, first + num_rows]).tolist())
        scores_BR[self._excluded_queries[own], self._excluded_slots[own] - first] = -torch.inf
        rows_BC = _best_rows(scores_BR, self._num_candidates)
        exact = block.exact_scores(rows_BC, self._queries_BD)
        self._scores.append(exact.masked_fill_(scores_BR.gather(1, rows_BC) == -torch.inf, -torch.inf))
        self._slots.append(rows_BC + first)

    def best(self) -> list[ScannedSlots]:
        """For each query. Waits for the device."""
        if not self._scores:
            return [ScannedSlots(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in self._ks]
        all_scores, all_slots = torch.cat(self._scores, 1), torch.cat(self._slots, 1)
        best = torch.topk(all_scores, min(max(self._ks), all_scores.shape[1]))
        scores_BC = best.values.cpu().numpy()
        slots_BC = all_slots.gather(1, best.indices).cpu().numpy()
        lengths = [min(k, int(np.count_nonzero(own > -np.inf))) for k, own in zip(self._ks, scores_BC, strict=True)]
        return [ScannedSlots(slots_BC[row, :length], scores_BC[row, :length]) for row, length in enumerate(lengths)]


def _best_rows(scores_BR: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C): rows of the highest scores, in any order."""
    scores_BGR = scores_BR.view(len(scores_BR), -1, GROUP)
    num_groups = scores_BGR.shape[1]
    groups_BG = torch.topk(scores_BGR.amax(-1), min(count, num_groups), sorted=False).indices
    candidates = scores_BGR.gather(1, groups_BG[..., None].expand(-1, -1, GROUP)).flatten(1)
    best = torch.topk(candidates, min(count, candidates.shape[1]), sorted=False).indices
    return groups_BG.gather(1, best // GROUP) * GROUP + best % GROUP
