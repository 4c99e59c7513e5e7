"""Recall, NDCG and their intervals, from the ranks of the targets among all candidates.

Owns the protocol's formulas. Knows neither texts nor models. Shapes: M members, C candidates, R resamples.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
"""One for each member."""
Ranks = list[npt.NDArray[np.int64]]
"""For each member the ranks of its targets; the best candidate has rank 0."""

CUTOFFS: Final = (10, 100, 500, 2000)
NUM_RESAMPLES: Final = 2_000


def ranks_of(scores_MC: npt.NDArray[np.floating], targets: Sequence[Sequence[int]]) -> Ranks:
    """Of candidates with equal scores the earlier one ranks higher."""
    ranks: Ranks = []
    for scores_C, member_targets in zip(scores_MC, targets, strict=True):
        ranks_C = np.empty(len(scores_C), dtype=np.int64)
        ranks_C[np.argsort(-scores_C, kind="stable")] = np.arange(len(scores_C))
        ranks.append(ranks_C[np.asarray(member_targets, dtype=np.int64)])
    return ranks


def recall(ranks: Ranks, k: int) -> Numbers:
    """The targets among the first k, divided by how many there could be among k."""
    return np.array([(of_member < k).sum() / min(k, len(of_member)) for of_member in ranks], dtype=np.float64)


def ndcg(ranks: Ranks) -> Numbers:
    """Over all candidates; a target's relevance is one, every other candidate's zero."""
    return np.array(
        [
            (1 / np.log2(of_member + 2)).sum() / (1 / np.log2(np.arange(len(of_member)) + 2)).sum()
            for of_member in ranks
        ],
        dtype=np.float64,
    )


def interval(values: Numbers, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean, by a bootstrap over members."""
    low, high = np.quantile(_resampled_means(values, seed), (0.025, 0.975))
    return float(low), float(high)


def share_better(values: Numbers, rival_values: Numbers, seed: int = 0) -> float:
    """In what share of the resamples the mean of `values` is above the rival's. Both are of the same members."""
    return float((_resampled_means(values - rival_values, seed) > 0).mean())


def _resampled_means(values: Numbers, seed: int) -> Numbers:
    """(M,) -> (R,)"""
    drawn_RM = np.random.default_rng(seed).integers(0, len(values), size=(NUM_RESAMPLES, len(values)))
    means_R: Numbers = values[drawn_RM].mean(axis=1)
    return means_R
