"""Named places between two effects, where a test can stop the process as if it had been killed.

Outside of tests `point` does nothing. It lives down here because every stage and both tiers have effects. The one piece
of state of this module is what `arm` was told at process start.
"""

import os
from typing import Final

ENVIRONMENT: Final = "NEARLINE_CRASH_POINT"
"""`NAME` or `NAME:N`: leave at the N-th pass of that point, the first unless said otherwise."""
CRASH_STATUS: Final = 86

POINTS: Final = frozenset(
    (
        # The transactional loop, in its order.
        "transaction-begun",
        "outputs-sent",
        "offsets-sent",
        "committed",
        "rows-written",
    )
)

_armed: dict[str, int] = {}


def arm(text: str | None) -> None:
    """Called once, with the environment's value, where a process is put together. Raises ValueError."""
    _armed.clear()
    if not text:
        return
    name, _, passes = text.partition(":")
    if name not in POINTS:
        raise ValueError(f"{ENVIRONMENT} names no crash point: {name!r}; there are {', '.join(sorted(POINTS))}")
    _armed[name] = int(passes or "1")


def point(name: str) -> None:
    """Stands between two effects."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            os._exit(CRASH_STATUS)
