"""Runs a stage beside the test, in a thread or in a process of its own, and hears what its heartbeat says."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from streams.kafka.heartbeat import Heartbeat
from streams.kafka.records import Place
from tests.kit.waiting import until


class RecordedHeartbeat(Heartbeat):
    """Remembers what a loop has reported."""

    def __init__(self) -> None:
        self.owned: frozenset[Place] = frozenset()
        self.turns = 0
        self.beats = threading.Semaphore(0)

    def owns(self, places: Collection[Place]) -> None:
        self.owned = frozenset(places)

    def loop_turned(self) -> None:
        self.turns += 1

    def still_working(self) -> None:
        self.beats.release()

    def until_turned(self) -> None:
        turns = self.turns
        until(lambda: self.turns > turns + 1, "the loop to come round with nothing to do")


@contextmanager
def in_thread(run: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Runs a stage beside the test; what it raises is raised here when it ends."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def target() -> None:
        try:
            run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive(), "the stage did not end within 30 s"
        if failures:
            raise failures[0]


@contextmanager
def child(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a module of the tests as a process, and kills it at the end if it still runs."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A child of this process stands still. A signal alone is not enough: its threads run on for a moment, and may
    still answer."""
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
