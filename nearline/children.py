"""Starting and ending processes of ours. Knows nothing of what they do."""

import ctypes
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

Child = subprocess.Popen[bytes]

_PR_SET_PDEATHSIG = 1
_STDERR = 2
_LOOK_EVERY_S = 0.02
_KILL_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
    dies_with_parent: bool,
) -> Child:
    """A child in a session of its own, so that a Ctrl-C on the terminal reaches its parent alone.

    With `dies_with_parent` the kernel kills it when the *thread* that called this ends: call it from the main thread.
    `output` takes its stdout and stderr; None: both go to our stderr, because our stdout is for scripts.
    """
    return subprocess.Popen(
        list(command),
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=_STDERR if output is None else output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent if dies_with_parent else None,  # noqa: PLW1509 - one C call, no locks
    )


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def stop_all(processes: Sequence[Child], grace_s: float) -> list[Child]:
    """SIGTERM to all at once, SIGKILL to those that are left after `grace_s`. Returns those, when all have ended."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_s
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    left = [process for process in processes if process.poll() is None]
    for process in left:
        process.kill()
        process.wait()
    return left


def find(pid: int, is_ours: Callable[[list[str]], bool]) -> psutil.Process | None:
    """The live process with this pid if its command line is ours: pids are given out again."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not is_ours(process.cmdline()):
            return None
    except psutil.Error:
        return None
    return process


def is_stopped(pid: int) -> bool:
    """By a signal, and waiting for another one to go on."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def end(process: psutil.Process, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after `grace_s`. Returns when it has ended; its parent may not have noticed yet."""
    try:
        process.terminate()
        if not _ends_within(process, grace_s):
            process.kill()
            _ends_within(process, _KILL_S)
    except psutil.NoSuchProcess:
        pass


def _ends_within(process: psutil.Process, seconds: float) -> bool:
    """Not psutil's `wait`: to that, a process whose parent does not ask for its status never ends."""
    deadline = time.monotonic() + seconds
    while process.is_running() and not _is_over(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _is_over(process: psutil.Process) -> bool:
    """A zombie with threads is not: they still hold its files and ports."""
    return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
