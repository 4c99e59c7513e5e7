"""Threads that work on answers come after those that talk to clients."""

import os
import sys
from threading import get_native_id

import pytest

from retriever.workers import STEPS, worker


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
def test_a_worker_steps_back_and_nobody_else_does() -> None:
    own = os.getpriority(os.PRIO_PROCESS, get_native_id())
    theirs: list[int] = []
    thread = worker(lambda: theirs.append(os.getpriority(os.PRIO_PROCESS, get_native_id())), "some-work")
    assert (thread.daemon, thread.name) == (True, "some-work")
    thread.start()
    thread.join()
    # Nothing is nicer than 19.
    assert theirs == [min(own + STEPS, 19)]
    assert os.getpriority(os.PRIO_PROCESS, get_native_id()) == own
