"""Processes that a benchmark starts, tells what to do in lines on stdin, and hears from in lines on stdout. They end
when their stdin closes.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import psutil

from benchmarks.kit.background import in_background

_PIPE_BYTES: Final = 2**20
"""So that writing to a child that is frozen for a minute does not block."""
_END_S: Final = 60.0


class Child:
    """Any thread may tell it something."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = psutil.Process(process.pid)
        self._command = str(process.args)  # a process that has ended does not tell it any more
        self._lock = threading.Lock()
        self._stdin = _pipe(process.stdin)
        self._stdout = _pipe(process.stdout)
        fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def tell(self, *words: object) -> None:
        with self._lock:
            self._stdin.write(" ".join(map(str, words)) + "\n")
            self._stdin.flush()

    def hear(self) -> str:
        """Waits for the next line. Raises RuntimeError if the process has ended."""
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"this process has ended: {self._command}")
        return line.strip()

    def ask(self, *words: object) -> str:
        self.tell(*words)
        return self.hear()

    def cpu_s(self) -> float:
        """CPU time since its start."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The process does not run at all, as on a machine that hangs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def child(module: str, *words: object, folder: Path | None = None) -> Iterator[Child]:
    """Runs a module of this repository, or of the copy in `folder`, until the block ends."""
    environment = None if folder is None else {**os.environ, "PYTHONPATH": str(folder)}
    with _started([sys.executable, "-m", module, *map(str, words)], environment, folder) as process:
        yield Child(process)


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str] | None, folder: Path | None
) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    try:
        yield process
    finally:
        with suppress(BrokenPipeError):
            _pipe(process.stdin).close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()


class Ticker:
    """Tells children, at a steady rate, the numbers of the writes that come in: `posts FIRST END`."""

    def __init__(self, children: Sequence[Child], rate: float, tick_s: float = 0.02) -> None:
        self._children = children
        self._rate = rate
        self._tick_s = tick_s
        self.num_written = 0

    def ticking(self) -> AbstractContextManager[None]:
        return in_background(self._run)

    def _run(self, stop: threading.Event) -> None:
        start, before = time.perf_counter(), self.num_written
        while not stop.wait(self._tick_s):
            end = before + int((time.perf_counter() - start) * self._rate)
            if end > self.num_written:
                for each in self._children:
                    each.tell("posts", self.num_written, end)
                self.num_written = end


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
