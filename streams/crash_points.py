"""Named places between two effects, where a test makes this process leave as a kill -9 would.

Nothing is armed unless a process asks for it; a place that is not armed costs one look at an empty dictionary.
"""

import os
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "NEARLINE_CRASH_POINT"
"""`name` or `name:n`: leave at the n-th pass of that place. Read only where a process calls `arm_from`."""
EXIT_STATUS: Final = 86

_armed: dict[str, int] = {}


def arm(name: str, passes: int = 1) -> None:
    """Leave at the pass number `passes` of the place `name`, counted from now."""
    _armed[name] = passes


def arm_from(environment: Mapping[str, str]) -> None:
    name, _, passes = environment.get(VARIABLE, "").partition(":")
    if name:
        arm(name, int(passes or 1))


def point(name: str) -> None:
    """Called between two effects."""
    if not _armed or name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        os.write(2, f"leaving at the crash point {name}\n".encode())
        os._exit(EXIT_STATUS)
