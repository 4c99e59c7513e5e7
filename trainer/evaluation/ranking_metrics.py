"""How high each target stands among all candidates, and the figures that follow from that.

Owns the protocol's formulas. Knows neither texts nor models: scores come in, numbers go out.
Shapes: M members, C candidates, R resamples.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
"""One per member."""
Ranks = list[npt.NDArray[np.int64]]
"""Of each member its targets' places, 0 for the best candidate."""

CUTOFFS: Final = (10, 100, 500, 2000)
RESAMPLES: Final = 2_000


def ranks_of(scores_MC: npt.NDArray[np.floating], targets: Sequence[Sequence[int]]) -> Ranks:
    """Of equal scores the earlier candidate stands higher."""
    found: Ranks = []
    for scores_C, wanted in zip(scores_MC, targets, strict=True):
        places_C = np.empty(len(scores_C), dtype=np.int64)
        places_C[np.argsort(-scores_C, kind="stable")] = np.arange(len(scores_C))
        found.append(places_C[np.asarray(wanted, dtype=np.int64)])
    return found


def recall(ranks: Ranks, k: int) -> Numbers:
    """Hits in the first k, by as many as there could be."""
    return np.array([(places < k).sum() / min(k, len(places)) for places in ranks], dtype=np.float64)


def ndcg(ranks: Ranks) -> Numbers:
    """Over all candidates; a target counts one, everything else nothing."""
    return np.array(
        [(1 / np.log2(places + 2)).sum() / (1 / np.log2(np.arange(len(places)) + 2)).sum() for places in ranks],
        dtype=np.float64,
    )


def interval(values: Numbers, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean, by a bootstrap over members."""
    low, high = np.quantile(_resampled(values, seed), (0.025, 0.975))
    return float(low), float(high)


def share_better(ours: Numbers, theirs: Numbers, seed: int = 0) -> float:
    """In what share of the resamples the mean of ours is above that of theirs, both over the same members."""
    return float((_resampled(ours - theirs, seed) > 0).mean())


def _resampled(values: Numbers, seed: int) -> Numbers:
    """(M,) -> (R,): means."""
    drawn_RM = np.random.default_rng(seed).integers(0, len(values), size=(RESAMPLES, len(values)))
    means: Numbers = values[drawn_RM].mean(axis=1)
    return means
