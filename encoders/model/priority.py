"""The priority of a thread among all threads of the machine."""

import os
import threading
from typing import Final

_LOWEST: Final = 19


def run_below_all_others() -> None:
    """This thread gets a core only where nobody else wants it. On Linux each thread has a priority of its own, and may
    not raise it again."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
