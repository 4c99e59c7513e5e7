"""Which slots pass a filter, as one comparison of arrays after the other. The same code for numpy's arrays and torch's
tensors: it uses only what both have.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.hot.matrix.matrix import Fields, ScanFilter, ScanQuery
from indexer.hot.slots import Slots
from indexer.tiers import Numbers

_FEW: Final = 8
"""A look-up in a table costs as much as eight comparisons."""
Move = Callable[[npt.NDArray[Any]], Any]
"""Brings an array to where the fields are."""


def passing(scan_filter: ScanFilter, live: Any, fields: Fields, move: Move) -> Any:
    """Which of the live rows pass. `live` is not changed. Says nothing about `only_slots`."""
    conditions = [live]
    if scan_filter.languages is not None:
        conditions.append(_among(fields.language, scan_filter.languages, move))
    if scan_filter.created_after_us is not None:
        conditions.append(fields.created_at_us > scan_filter.created_after_us)
    if scan_filter.created_before_us is not None:
        conditions.append(fields.created_at_us < scan_filter.created_before_us)
    if scan_filter.only_authors is not None:
        conditions.append(_among(fields.author, scan_filter.only_authors, move))
    if len(scan_filter.exclude_authors):
        conditions.append(~_among(fields.author, scan_filter.exclude_authors, move))
    mask = live
    for condition in conditions[1:]:
        mask = mask & condition
    return mask


def without_authors(queries: Sequence[ScanQuery], fields: Fields, move: Move) -> list[ScanQuery]:
    """The queries with the slots of their excluded authors among their excluded slots. Looks at all slots once, not
    once for each query."""
    wanted = np.unique(np.concatenate([query.excluded_authors for query in queries]))
    wanted = wanted[wanted >= 0]
    if not len(wanted):
        return list(queries)
    table = np.zeros(int(wanted[-1]) + 2, np.bool_)
    table[wanted] = True
    found = move(table)[fields.author.clip(max=len(table) - 1)].nonzero()
    slots = _on_host(found[0] if isinstance(found, tuple) else found[:, 0])
    authors = _on_host(fields.author[slots])
    return [_without(query, slots, authors) for query in queries]


def _without(query: ScanQuery, slots: Slots, authors: Numbers) -> ScanQuery:
    if not len(query.excluded_authors):
        return query
    own = slots[np.isin(authors, query.excluded_authors)]
    return query._replace(excluded=np.union1d(query.excluded, own))


def _on_host(array: Any) -> npt.NDArray[Any]:
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu())


def _among(codes: Any, wanted: npt.NDArray[np.int32], move: Move) -> Any:
    """For each code whether it is one of those wanted. A wanted code below zero is none."""
    if len(wanted) <= _FEW:
        among = codes == -1
        for code in wanted.tolist():
            if code >= 0:
                among |= codes == code
        return among
    table = np.zeros(int(wanted.max()) + 2, np.bool_)
    # The last entry stands for all higher codes. The index -1 would also set it, so it is reset.
    table[wanted] = True
    table[-1] = False
    return move(table)[codes.clip(max=len(table) - 1)]
