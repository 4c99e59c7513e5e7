"""Quantile tables: numbers become percentiles, 1 to 100.

A table is 99 boundaries in rising order, of which some may be equal. Knows no units and no fields.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

NUM_BOUNDARIES = 99


def percentile(boundaries: Sequence[float], number: float) -> int:
    """1 below the first boundary, 100 at or above the last."""
    return bisect_right(boundaries, number) + 1


def quantile_table(numbers: Iterable[float]) -> list[float]:
    """The 99 boundaries of a sample. Each is a number of the sample, so a table of counts holds only whole numbers."""
    sample = np.fromiter(numbers, dtype=np.float64)
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError("a quantile table needs at least one number, and only finite ones")
    levels = np.arange(1, NUM_BOUNDARIES + 1) / (NUM_BOUNDARIES + 1)
    table: list[float] = np.quantile(sample, levels, method="inverted_cdf").tolist()
    return table


def check_table(boundaries: Sequence[float]) -> None:
    """Raises ValueError when this is no quantile table."""
    if len(boundaries) != NUM_BOUNDARIES:
        raise ValueError(f"a quantile table has {NUM_BOUNDARIES} boundaries, not {len(boundaries)}")
    if not np.isfinite(boundaries).all() or any(low > high for low, high in pairwise(boundaries)):
        raise ValueError("the boundaries of a quantile table are finite and never fall")
