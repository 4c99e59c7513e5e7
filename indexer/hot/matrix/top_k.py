"""The k highest scores of each of several queries, gathered from one tile of scores after the other.

Almost no score of a tile is among the best. So each query has a bound, and only the few scores above it are looked at
one by one. The first bound is a guess from a sample of the rows. Whoever finds fewer than k scores above it has to scan
again without a bound; else the best are exact.

Shapes: R rows of a tile, B queries, N sampled rows, C candidates.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.tiers import Scores

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

_SIGMAS: Final = 4.0
"""A guessed bound is so much lower than the sample says that it fails once in some ten thousand searches."""
_MIN_RANK: Final = 4
"""The same for samples in which hardly one of the best is to be expected."""
_SURPLUS: Final = 4
"""When a query has this many times k candidates, its k best are kept and its bound rises."""
_PATTERN: Final = 128
"""numpy compares rows of eight numbers slowly, and rows of a thousand fast."""


class Best(NamedTuple):
    """Best first. Equal scores come in any order."""

    positions: Positions
    scores: Scores


class Tile(NamedTuple):
    scores_RB: Scores
    """C-contiguous. Minus infinity: never a candidate."""
    first: int
    """The position of the first row."""
    masks: Sequence[Mask]
    """Each (R,): which rows may be candidates."""
    mask_of_B: npt.NDArray[np.intp]
    """For each query, which mask."""


class Candidates:
    """The best that a batch of queries has seen so far, and perhaps more."""

    def __init__(self, ks: Sequence[int], bounds_B: Scores) -> None:
        """`bounds_B`: scores up to which nothing is looked at."""
        self._ks = ks
        self._bounds_B = bounds_B.copy()
        self._parts: list[_Part] = []
        self._counts_B = np.zeros(len(ks), np.int64)
        self._limits_B = np.array(ks, np.int64) * _SURPLUS

    def add(self, tile: Tile) -> None:
        found = np.flatnonzero(_above(tile.scores_RB.reshape(-1), self._bounds_B))
        rows, queries = _rows_and_queries(found, len(self._ks))
        part = _Part(rows + tile.first, queries, tile.scores_RB.reshape(-1)[found])
        allowed = _allowed(tile, rows, queries)
        self._append(part if allowed.all() else part.at(allowed))
        if (self._counts_B > self._limits_B).any():
            self._keep_best()

    def merge(self, other: "Candidates") -> None:
        for part in other._parts:
            self._append(part)

    def best(self) -> list[Best]:
        """For each query up to k."""
        return [part.best(k).sorted() for part, k in zip(self._by_query(), self._ks, strict=True)]

    def _append(self, part: "_Part") -> None:
        self._parts.append(part)
        self._counts_B += np.bincount(part.queries, minlength=len(self._ks))

    def _keep_best(self) -> None:
        parts = [part.best(k) for part, k in zip(self._by_query(), self._ks, strict=True)]
        self._parts = []
        self._counts_B[:] = 0
        for query, part in enumerate(parts):
            if len(part.scores) == self._ks[query]:
                self._bounds_B[query] = part.scores.min()
            self._append(part)

    def _by_query(self) -> "list[_Part]":
        everything = _joined(self._parts)
        everything = everything.at(np.argsort(everything.queries, kind="stable"))
        ends = np.searchsorted(everything.queries, np.arange(len(self._ks) + 1)).tolist()
        return [everything.at(slice(first, last)) for first, last in pairwise(ends)]


class _Part(NamedTuple):
    """Candidates as columns (C,)."""

    positions: Positions
    queries: npt.NDArray[np.uint8]
    scores: Scores

    def at(self, rows: Mask | Positions | slice) -> "_Part":
        return _Part(self.positions[rows], self.queries[rows], self.scores[rows])

    def best(self, k: int) -> "_Part":
        """The k with the highest scores, in any order."""
        surplus = len(self.scores) - k
        return self if surplus <= 0 else self.at(np.argpartition(self.scores, surplus)[surplus:])

    def sorted(self) -> Best:
        order = np.argsort(-self.scores)
        return Best(self.positions[order], self.scores[order])


def guess_bounds(scores_NB: Scores, allowed: Sequence[Mask], ks: Sequence[int], num_rows: int) -> Scores:
    """(B,): for each query a score that its k-th best of all rows most likely exceeds. `scores_NB`: of rows that were
    drawn at random; `allowed`: for each query, which of these its mask lets through."""
    bounds_B = np.full(len(ks), -np.inf, np.float32)
    for query, k in enumerate(ks):
        sample = scores_NB[allowed[query], query]
        expected = k * len(scores_NB) / num_rows
        rank = math.ceil(expected + _SIGMAS * math.sqrt(expected)) + _MIN_RANK
        if rank < len(sample):
            bounds_B[query] = np.partition(sample, len(sample) - rank)[len(sample) - rank]
    return bounds_B


def _rows_and_queries(found: Positions, num_queries: int) -> tuple[Positions, npt.NDArray[np.uint8]]:
    if num_queries == 1:
        return found, np.zeros(len(found), np.uint8)
    rows, queries = np.divmod(found, num_queries)
    return rows, queries.astype(np.uint8)


def _allowed(tile: Tile, rows: Positions, queries: npt.NDArray[np.uint8]) -> Mask:
    if len(tile.masks) == 1:
        return tile.masks[0][rows]
    return np.stack(tile.masks)[tile.mask_of_B[queries], rows]


def _joined(parts: Sequence[_Part]) -> _Part:
    if not parts:
        return _Part(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.float32))
    return _Part(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _above(flat: Scores, bounds_B: Scores) -> Mask:
    """Of the scores of R rows by B queries, one row after the other: which are above their query's bound."""
    if len(bounds_B) == 1:
        return np.asarray(flat > bounds_B[0])
    pattern = np.tile(bounds_B, _PATTERN)
    above = np.empty(len(flat), np.bool_)
    whole = len(flat) // len(pattern) * len(pattern)
    shape = (-1, len(pattern))
    np.greater(flat[:whole].reshape(shape), pattern, out=above[:whole].reshape(shape))
    np.greater(flat[whole:], pattern[: len(flat) - whole], out=above[whole:])
    return above
