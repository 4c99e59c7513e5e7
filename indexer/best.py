"""The k best of many scores, and the order of equal scores. Knows neither tiers nor posts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from indexer.tiers import Scores

Rows = npt.NDArray[np.intp]


def best_k(scores: Scores, k: int, ids: Sequence[str] | None = None) -> Rows:
    """Rows of the k highest scores, best first; all rows if there are fewer than k.

    With `ids` (one a row) the order is by (-score, id). Without them rows of equal score keep the order in which they
    came. Ids are compared only where scores are equal, because strings are slow to sort.
    """
    order = np.argsort(-scores, kind="stable")
    if ids is not None:
        same_as_next = np.diff(scores[order]) == 0
        tied = np.append(same_as_next, False) | np.insert(same_as_next, 0, False)
        if tied.any():
            by_id = np.array(sorted(order[tied].tolist(), key=ids.__getitem__))
            order[tied] = by_id[np.argsort(-scores[by_id], kind="stable")]
    return order[:k]
