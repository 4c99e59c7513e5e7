"""Combines the lists of several vectors of one member into one answer. Pure arithmetic on arrays.

`best`: a post counts by its best score with any of the vectors. `quota`: of the k posts each vector gives its share of
the weights, its best ones; a post that is in several lists counts for the one where it comes first. Either way a post
that the answer has stands in the list of one of the vectors among the first k.

Shapes: N entries of all lists together, P posts, K candidates.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from encoders.interests import quota_places
from retriever.answer.merge import IdsOf, Merged, best_rows

Floats = npt.NDArray[np.floating]
How = Literal["quota", "best"]
SPARE: Final = 16
"""Candidates of a short list that may be in other lists too."""


class PartList(NamedTuple):
    merged: Merged
    share: float
    """Of the weights of all vectors."""
    k: int
    """How many candidates were asked for. Fewer are all there are."""


class Combined(NamedTuple):
    merged: Merged
    """Without what the tiers may miss: that is said of each list."""
    too_short: list[bool]
    """For each list whether a post below its last one may belong here."""


def list_length(k: int, share: float, how: How) -> int:
    """How many candidates of a vector are asked for first. Of `quota` a vector needs its share, and as many more as are
    in other lists too."""
    return k if how == "best" else max(1, min(k, int(1.25 * share * k) + SPARE))


def combine(lists: Sequence[PartList], how: How, k: int, ids_of: IdsOf) -> Combined:
    """The best k of all lists, sorted by (-score, post id)."""
    if len(lists) == 1:
        return Combined(lists[0].merged, [False])
    columns = [np.concatenate([getattr(each.merged, name) for each in lists]) for name in Merged._fields[:4]]
    numbers_N, scores_N, revisions_N, tiers_N = columns
    places_N = np.zeros(len(numbers_N))
    if how == "quota":
        places_N = np.concatenate([quota_places(np.arange(len(each.merged.numbers_K)), each.share) for each in lists])
    # Of each post the newest copy, and of equal copies the first in its list or else the one with the highest score.
    order = np.lexsort((-scores_N, places_N, -revisions_N, numbers_N))
    rows_P = order[np.flatnonzero(np.diff(numbers_N[order], prepend=-1))]
    too_short = [False] * len(lists)
    if how == "quota":
        places_P = places_N[rows_P]
        chosen = best_rows(numbers_N[rows_P], -_ordered(places_P, scores_N[rows_P]), k, ids_of)
        last_place = places_P[chosen].max() if len(chosen) == k else np.inf
        rows_P = rows_P[chosen]
        too_short = [_is_too_short(each, k, last_place) for each in lists]
    best = rows_P[best_rows(numbers_N[rows_P], scores_N[rows_P], k, ids_of)]
    merged = Merged(numbers_N[best], scores_N[best], revisions_N[best], tiers_N[best], False, False)
    return Combined(merged, too_short)


def _ordered(places_P: Floats, scores_P: Floats) -> npt.NDArray[np.int64]:
    """Numbers in the order of (place, -score). Interests of equal weight have equal places, and ids are slow to
    compare."""
    order = np.lexsort((-scores_P, places_P))
    is_new = (np.diff(places_P[order]) != 0) | (np.diff(scores_P[order]) != 0)
    numbers_P = np.zeros(len(order), np.int64)
    numbers_P[order[1:]] = np.cumsum(is_new)
    return numbers_P


def _is_too_short(part: PartList, k: int, last_place: float) -> bool:
    """Whether the list was cut before k, and its next post would have a place among the chosen ones."""
    length = len(part.merged.numbers_K)
    was_cut = part.k < k and length == part.k
    return was_cut and bool(quota_places(np.array([length]), part.share)[0] <= last_place)
