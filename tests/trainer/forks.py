"""Processes that train: forks of one that has loaded the libraries already, which takes longer than to train.

`python -m tests.trainer.forks` is that process. Each line of its input is a list of runs that are to be at the same
time; it answers with their exit statuses. A run is a module of the tests as `python -m` would run it.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn


class Run(NamedTuple):
    module: str
    arguments: Sequence[str]
    output: str
    """A file for what it prints, errors too."""
    environment: Mapping[str, str] = {}


class Forks:
    """Ends the process with `close`; its forks have ended by then."""

    def __init__(self) -> None:
        # One thread: a process with more should not fork.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.trainer.forks"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def run(self, *runs: Run) -> list[int]:
        """The exit status of each; a signal's number is negative."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([run._asdict() for run in runs]) + "\n")
        self._process.stdin.flush()
        statuses: list[int] = json.loads(self._process.stdout.readline())
        return statuses

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _serve() -> None:
    import nearline.cli  # noqa: F401  both are there before the first fork
    import trainer.training  # noqa: F401

    for line in sys.stdin:
        forked = [_forked(Run(**run)) for run in json.loads(line)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]
        print(json.dumps(statuses), flush=True)


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
