"""Starts and ends child processes. Knows nothing of what they do."""

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
_POLL_S = 0.02
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
    """Starts a child in its own session, so that a Ctrl-C on the terminal reaches only its parent.

    With `dies_with_parent` the kernel kills the child when the *thread* that called this function ends: call it from
    the main thread. `output` takes the child's stdout and stderr. Without it both go to our stderr, because our stdout
    is for scripts.
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
    """Sends SIGTERM to all at once, and SIGKILL to those that still run after `grace_s`. Returns when all have ended,
    with those that had to be killed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_s
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    killed = [process for process in processes if process.poll() is None]
    for process in killed:
        process.kill()
        process.wait()
    return killed


def find(pid: int, is_ours: Callable[[list[str]], bool]) -> psutil.Process | None:
    """The live process with this pid, if its command line is ours: the kernel may have given the pid to another one."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not is_ours(process.cmdline()):
            return None
    except psutil.Error:
        return None
    return process


def is_stopped(pid: int) -> bool:
    """True where a signal has stopped the process, and it waits for SIGCONT."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def end(process: psutil.Process, grace_s: float) -> None:
    """Sends SIGTERM, then SIGKILL after `grace_s`. Returns when the process has ended. Its parent may not have noticed
    by then."""
    try:
        process.terminate()
        if not _wait_for_end(process, grace_s):
            process.kill()
            _wait_for_end(process, _KILL_S)
    except psutil.NoSuchProcess:
        pass


def _wait_for_end(process: psutil.Process, seconds: float) -> bool:
    """Does not use psutil's `wait`: it waits for a zombie too, which stays until its parent asks for its status."""
    deadline = time.monotonic() + seconds
    while process.is_running() and not _has_ended(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _has_ended(process: psutil.Process) -> bool:
    """True for a zombie without other threads. While threads are left they still hold the process's files and ports."""
    return bool(process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
