"""Merges the hits of both tiers into the best k. Pure arithmetic on arrays; knows neither tier.

The hot search happens after the cold one, and says which revision it holds of each cold hit. So of each post the newest
revision is known here, and no third look is needed.

Shapes: H hits of the hot tier, C of the cold one, K candidates.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.tiers import HotAnswer, Numbers, Scores
from schemas.ids import PostId

Revisions = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
IdsOf = Callable[[Numbers], list[PostId]]
"""The ids of these posts, of the table that gave them their numbers."""

HOT: Final = 0
COLD: Final = 1
"""Indexes into `TIERS`."""
NOT_HELD: Final = -1
"""The revision of a post that the hot tier does not hold: below every real one, so that it hides no cold hit."""


class ColdColumns(NamedTuple):
    """Hits of one cold search, sorted by (-score, post id)."""

    numbers_C: Numbers
    scores_C: Scores
    revisions_C: Revisions
    limit: int
    """How many hits were asked for. Fewer hits are all that pass the filters."""


class Merged(NamedTuple):
    """Candidates as columns, sorted by (-score, post id)."""

    numbers_K: Numbers
    scores_K: Scores
    revisions_K: Revisions
    tiers_K: npt.NDArray[np.uint8]
    hot_may_miss: bool
    """A post below the last hot hit may belong here, because newer cold copies took the place of hits."""
    cold_may_miss: bool
    """A post below the last cold hit may belong here, because too many hits are hidden or replaced."""


NO_COLD_COLUMNS: Final = ColdColumns(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64), 1)


def without_hot(cold: ColdColumns) -> HotAnswer:
    """What stands for a hot tier that cannot answer: no hits, and nothing hidden."""
    return HotAnswer(*NO_COLD_COLUMNS[:3], np.full(len(cold.numbers_C), NOT_HELD, np.int64), {})


def merge(hot: HotAnswer, hot_limit: int, cold: ColdColumns, k: int, ids_of: IdsOf) -> Merged:
    """The best k of the newest revisions. `hot` is of a search for `hot_limit` hits, with `cold.numbers_C`."""
    # A hot copy hides its cold one also if both are of the same revision: then the hot search had the post too.
    newer_C = cold.revisions_C > hot.cold_revisions
    outdated_H = _outdated(hot, cold.numbers_C[newer_C & (hot.cold_revisions != NOT_HELD)])
    hot_rows = slice(None) if outdated_H is None else ~outdated_H
    numbers = np.concatenate([hot.numbers[hot_rows], cold.numbers_C[newer_C]])
    scores = np.concatenate([hot.scores[hot_rows], cold.scores_C[newer_C]])
    revisions = np.concatenate([hot.revisions[hot_rows], cold.revisions_C[newer_C]])
    num_hot = len(numbers) - int(np.count_nonzero(newer_C))
    best = best_rows(numbers, scores, k, ids_of)
    last = scores[best[-1]] if len(best) == k else np.float32(-np.inf)
    return Merged(
        numbers[best],
        scores[best],
        revisions[best],
        np.where(best < num_hot, HOT, COLD).astype(np.uint8),
        hot_may_miss=outdated_H is not None and _may_miss(hot.scores, hot_limit, last),
        cold_may_miss=_may_miss(cold.scores_C, cold.limit, last),
    )


def _outdated(hot: HotAnswer, replaced: Numbers) -> npt.NDArray[np.bool_] | None:
    """(H,): which hot hits have a newer copy in the cold tier. None if there is none, as nearly always: only a cold
    tier that has read further than the hot feed has newer copies."""
    if not len(replaced):
        return None
    outdated_H = np.isin(hot.numbers, replaced)
    return outdated_H if outdated_H.any() else None


def _may_miss(tier_scores: Scores, limit: int, last: np.float32) -> bool:
    """Whether a post that the tier did not return could be better than the last candidate. If there are fewer than k
    candidates, `last` is minus infinity."""
    return len(tier_scores) >= limit and bool(last < tier_scores[-1])


def best_rows(numbers: Numbers, scores: npt.NDArray[Any], k: int, ids_of: IdsOf) -> Rows:
    """Rows of the k highest scores by (-score, post id). Ids are made only of rows with equal scores."""
    order = np.argsort(-scores, kind="stable")  # quick: it finds the two sorted runs
    ranked = scores[order]
    if len(order) > k:
        # Rows that share the k-th score stay, until their ids have been compared.
        order = order[: int(np.searchsorted(-ranked, -ranked[k - 1], side="right"))]
        ranked = ranked[: len(order)]
    same_as_next = ranked[1:] == ranked[:-1]
    if same_as_next.any():
        _sort_equals(order, same_as_next, numbers, ids_of)
    return order[:k]


def _sort_equals(order: Rows, same_as_next: npt.NDArray[np.bool_], numbers: Numbers, ids_of: IdsOf) -> None:
    """Sorts runs of rows with equal scores by post id, in place."""
    tied = np.append(same_as_next, False)
    tied[1:] |= same_as_next
    runs = np.cumsum(np.insert(~same_as_next, 0, False))[tied].tolist()
    rows = order[tied]
    ids = ids_of(numbers[rows])
    order[tied] = rows[sorted(range(len(rows)), key=lambda row: (runs[row], ids[row]))]
