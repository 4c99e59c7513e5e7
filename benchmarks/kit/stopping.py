"""Stops a process of an instance by a signal, as one that hangs."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nearline.pipeline import Pipeline


@contextmanager
def stopped(pipeline: Pipeline, process: str) -> Iterator[None]:
    """While the block lasts, unless it is killed meanwhile. Raises RuntimeError if it does not run."""
    pid = next((each.pid for each in pipeline.instance.processes if each.name == process), None)
    if pid is None:
        raise RuntimeError(f"{process} does not run")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
