"""Arrays that grow while others read them: a larger copy is made, and takes the old one's place when it is whole.

Whoever reads takes the array once and keeps it; what was visible then stays in it unchanged.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def grown(array: _Array, size: int) -> _Array:
    """A copy with at least `size` elements along the first axis; the array itself if it is that long. The new ones are
    zero. The size grows by half, so that few copies are made; memory that is never written takes no room."""
    if size <= len(array):
        return array
    larger = np.zeros((max(size, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger  # type: ignore[return-value]
