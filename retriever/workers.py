"""Threads that work on answers. They take the processor after the threads that read and write for clients.

Otherwise, in an overload, the one thread that takes questions in waits behind all of these for its turn, and refuses
late.
"""

import os
import sys
import threading
from collections.abc import Callable
from threading import Thread
from typing import Final

STEPS: Final = 3
"""Of niceness. A thread of the usual priority gets twice as much of a processor for which both compete. With more,
answers would suffer beside other processes of the machine."""
_LOWEST: Final = 19


def worker(work: Callable[[], None], name: str) -> Thread:
    """A thread that is not started yet. A daemon, because a tier may hang: it does not hold up the process's end."""

    def run() -> None:
        _step_back()
        work()

    return Thread(target=run, name=name, daemon=True)


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere it would be the whole process
        this_thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, this_thread)
        os.setpriority(os.PRIO_PROCESS, this_thread, min(niceness + STEPS, _LOWEST))
