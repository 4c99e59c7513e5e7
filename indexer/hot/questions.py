"""The queries of a batch with their filters as numbers. All ids are looked up before the tier's lock is taken, so that
within the lock there is one look-up of an array. Who has looked too early, because such a post came in meanwhile, looks
again.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.hot.contents import Contents, Moment
from indexer.hot.matrix.matrix import ScanFilter, ScanQuery
from indexer.hot.slots import Slots
from indexer.tiers import Filters, HotQuery, Numbers

_FEW_AUTHORS: Final = 8


class Questions:
    """Ask for `numbers`, look up their slots, and give these to `scans`."""

    def __init__(self, queries: Sequence[HotQuery], contents: Contents) -> None:
        self._queries = queries
        self._contents = contents
        self._parts: list[Numbers] = []
        """Of posts: the cold hits of each query, then each set of ids that a filter names."""
        self._part_of: dict[frozenset[str], int] = {}
        self._step = contents.step
        self._filters = [_shared(query.filters) for query in queries]
        self._parts += [query.cold_numbers for query in queries]
        for query in queries:
            self._add(query.filters.exclude_posts)
            if query.filters.only_posts is not None:
                self._add(query.filters.only_posts)

    def numbers(self) -> Numbers:
        """Of all posts that the batch names."""
        return np.concatenate([np.empty(0, np.int32), *self._parts])

    def looked_too_early(self, moment: Moment) -> bool:
        """Whether one of the ids has come in between the look-up and the moment, so that a filter would miss its post.
        Ask within the moment: what it shows cannot leave the table then."""
        if moment.step == self._step:
            return False
        find = self._contents.ids.find
        return any((find(ids) != self._parts[part]).any() for ids, part in self._part_of.items())

    def cold_slots(self, slots: Slots) -> list[Slots]:
        """Of each query's cold hits. `slots`: of `numbers`, -1 for a post that is not held."""
        return self._split(slots)[: len(self._queries)]

    def scans(self, slots: Slots) -> list[ScanQuery]:
        """`slots`: of `numbers`, -1 for a post that is not held."""
        parts = self._split(slots)
        sets = {ids: _held(parts[part]) for ids, part in self._part_of.items()}
        scan_filters = {filters: self._scan_filter(filters, sets) for filters in dict.fromkeys(self._filters)}
        return [
            ScanQuery(
                query.vector_D,
                query.k,
                scan_filters[filters],
                excluded=sets[query.filters.exclude_posts],
                excluded_authors=self._contents.authors.find(query.filters.exclude_authors - filters.exclude_authors),
            )
            for query, filters in zip(self._queries, self._filters, strict=True)
        ]

    def _add(self, ids: frozenset[str]) -> None:
        if ids not in self._part_of:
            self._part_of[ids] = len(self._parts)
            self._parts.append(self._contents.ids.find(ids))

    def _split(self, slots: Slots) -> list[Slots]:
        return np.split(slots, np.cumsum([len(part) for part in self._parts])[:-1])

    def _scan_filter(self, filters: Filters, sets: dict[frozenset[str], Slots]) -> ScanFilter:
        authors = self._contents.authors
        return ScanFilter(
            languages=self._language_codes(filters.languages) if filters.languages else None,
            created_after_us=filters.created_after_us,
            created_before_us=filters.created_before_us,
            exclude_authors=authors.find(filters.exclude_authors),
            only_authors=None if filters.only_authors is None else authors.find(filters.only_authors),
            only_slots=None if filters.only_posts is None else sets[filters.only_posts],
        )

    def _language_codes(self, languages: frozenset[str]) -> npt.NDArray[np.int32]:
        codes = [self._contents.languages.find(language) for language in languages]
        return np.array([code for code in codes if code is not None], np.int32)


def _shared(filters: Filters) -> Filters:
    """What of the filters becomes a mask. Posts and a few authors are left out of single queries, so that queries that
    differ only in these share a mask."""
    shared = filters._replace(exclude_posts=frozenset())
    return shared._replace(exclude_authors=frozenset()) if len(filters.exclude_authors) <= _FEW_AUTHORS else shared


def _held(slots: Slots) -> Slots:
    """Sorted, each slot once."""
    return np.unique(slots[slots >= 0])
