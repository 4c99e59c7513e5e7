"""The fixed buckets of counts: they start at 0, 1, 2, 3, 5, 8, 12, 18 ..., each half as much again as the one before.

Counts are published only when one of them enters a new bucket. The buckets depend on no model package.
"""

from bisect import bisect_right
from typing import Final


def _bucket_starts(up_to: int) -> tuple[int, ...]:
    starts = [0, 1]
    while starts[-1] < up_to:
        starts.append((3 * starts[-1] + 1) // 2)
    return tuple(starts)


BUCKET_STARTS: Final = _bucket_starts(10**12)


def bucket(count: int) -> int:
    """The number of the bucket that this count is in; 0 for 0."""
    return bisect_right(BUCKET_STARTS, count) - 1
