"""Training processes, forked from a process that has already loaded the libraries: loading takes longer than training.

`python -m tests.kit.forks` is that process. Each line of its input is a list of runs to start together; it answers with
their exit statuses. A run is a module of the tests, run as by `python -m`.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn


class Run(NamedTuple):
    module: str
    arguments: Sequence[str]
    output: str
    """The file for its stdout and stderr."""
    environment: Mapping[str, str] = {}


class Forks:
    """The process starts with the first run. `close` ends it and all its forks."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, *runs: Run) -> list[int]:
        """Returns the exit status of each run; a signal's number is negative. If a run fails, the others are killed. An
        interruption, as by pytest's time limit, ends the process too, and the next call starts a new one."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([run._asdict() for run in runs]) + "\n")
            process.stdin.flush()
            statuses: list[int] = json.loads(process.stdout.readline())
        except BaseException:
            self.close()
            raise
        return statuses

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            with process:
                os.killpg(process.pid, signal.SIGKILL)


def _start() -> subprocess.Popen[str]:
    # One thread: a process with more should not fork. A group of its own, to be killed with all its forks.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kit.forks"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, start_new_session=True)


def _serve() -> None:
    import nearline.cli  # noqa: F401  both are there before the first fork
    import trainer.training  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_statuses([_forked(Run(**run)) for run in json.loads(line)])), flush=True)


def _statuses(pids: Sequence[int]) -> list[int]:
    """Waits for all. When a run fails, the others are killed, as they would wait for it."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        pid, status = os.wait()
        statuses[pid] = os.waitstatus_to_exitcode(status)
        if statuses[pid] != 0:
            for other in pids:
                if other not in statuses:
                    os.kill(other, signal.SIGKILL)
    return [statuses[pid] for pid in pids]


def _forked(run: Run) -> int:
    if pid := os.fork():
        return pid
    _become(run)


def _become(run: Run) -> NoReturn:
    status = 1
    try:
        output = os.open(run.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(run.environment)
        sys.argv = [run.module, *run.arguments]
        runpy.run_module(run.module, run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def output_of(run: Run) -> str:
    return Path(run.output).read_text()


if __name__ == "__main__":
    _serve()
    os._exit(0)  # to unload the libraries takes seconds too
