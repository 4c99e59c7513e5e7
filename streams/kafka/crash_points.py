"""Named points between two effects, at which a test makes this process exit as abruptly as a kill -9.

A point is armed only by a test or by the adversary (`nearline/chaos/`). A point that is not armed costs a look at an
empty dictionary.
"""

import os
from collections.abc import Callable
from typing import Final

OF_STAGES: Final = (
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
"""Passed by the processes of an instance, again and again."""
OF_OPERATORS: Final = (
    "generations.begun",
    "generations.records-sent",
    "generations.committed",
    "generations.package-fetched",
    "generations.topics-made",
    "generations.groups-deleted",
    "generations.files-removed",
    "generations.topics-deleted",
)
"""Passed by whoever changes the generations, builds one or retires one."""
NAMES: Final = OF_STAGES + OF_OPERATORS
EXIT_STATUS: Final = 86


class _Crash:
    def __init__(self, passes: int, is_granted: Callable[[], bool]) -> None:
        self.passes_left = passes
        self.is_granted = is_granted


_armed: dict[str, _Crash] = {}


def arm(name: str, passes: int = 1, is_granted: Callable[[], bool] = lambda: True) -> None:
    """Makes the process exit when it passes the point `name` for the `passes`-th time from now, or at the first pass
    after that for which `is_granted` returns True. The thread that passes the point calls `is_granted`."""
    _armed[name] = _Crash(passes, is_granted)


def crash_point(name: str) -> None:
    """Called between two effects. Ends the process here if the point is armed, otherwise does nothing."""
    if not _armed or name not in _armed:
        return
    crash = _armed[name]
    crash.passes_left -= 1
    if crash.passes_left <= 0 and crash.is_granted():
        os.write(2, f"leaving at the crash point {name}\n".encode())
        os._exit(EXIT_STATUS)
