"""Named places between two effects, where a test makes this process leave as a kill -9 would.

Nothing is armed unless a test or the adversary asks for it; a place that is not armed costs one look at an empty
dictionary.
"""

import os
from collections.abc import Callable
from typing import Final

NAMES: Final = (
    "transaction.begun",
    "transaction.outputs-sent",
    "transaction.offsets-sent",
    "transaction.committed",
    "transaction.rows-written",
    "index.indexed",
    "index.flushed",
    "index.dead-lettered",
    "index.stored",
    "index.committed",
)
EXIT_STATUS: Final = 86


class _Crash:
    def __init__(self, passes: int, is_granted: Callable[[], bool]) -> None:
        self.passes_left = passes
        self.is_granted = is_granted


_armed: dict[str, _Crash] = {}


def arm(name: str, passes: int = 1, is_granted: Callable[[], bool] = lambda: True) -> None:
    """The process leaves at the pass number `passes` of the place `name`, counted from now, or at the first one after
    it for which `is_granted` says yes. That is called by whichever thread passes."""
    _armed[name] = _Crash(passes, is_granted)


def arm_text(text: str) -> None:
    """`NAME` or `NAME:PASSES`, as a test gives it to a child; nothing for an empty text."""
    name, _, passes = text.partition(":")
    if name:
        arm(name, int(passes or 1))


def point(name: str) -> None:
    """Called between two effects."""
    if not _armed or name not in _armed:
        return
    crash = _armed[name]
    crash.passes_left -= 1
    if crash.passes_left <= 0 and crash.is_granted():
        os.write(2, f"leaving at the crash point {name}\n".encode())
        os._exit(EXIT_STATUS)
