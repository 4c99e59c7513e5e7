"""The fixed scale of counts: 0, 1, 2, 3, 5, 8, 12, 18 ... each half as much again as the one before.

A count that stays in its bucket is not worth a new vector. The scale knows no model package.
"""

from bisect import bisect_right
from typing import Final


def _steps(up_to: int) -> tuple[int, ...]:
    steps = [0, 1]
    while steps[-1] < up_to:
        steps.append((3 * steps[-1] + 1) // 2)
    return tuple(steps)


SCALE: Final = _steps(10**12)


def bucket(count: int) -> int:
    """The number of the bucket that this count is in; 0 for 0."""
    return bisect_right(SCALE, count) - 1
