"""Processes beside the run's own: a neighbour on the card, and trainings, which leave nothing behind when they end.

On a GPU they begin anew, because a process that has used CUDA cannot be forked. On a CPU they are forked, which saves
loading the libraries again.
"""

import gc
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.run import Run

Job = Callable[..., Any]
"""A function of a module; what it returns travels as JSON."""

DIVIDED: Final = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
"""Weights are divided (FSDP2): what `accelerate launch` tells each process when called as docs/training.md says."""

_SPARE_S: Final = 10.0
_MOST_S: Final = 150.0
"""Of one process."""
_LOOK_S: Final = 0.05
_KILLED: Final = -9
_numbers: Final = count()
"""Of the answers of a run."""


class Failed(Exception):
    """A process has failed, or did not end in time. The message holds its error."""


class Processes:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._context = multiprocessing.get_context("spawn" if run.device.is_gpu else "fork")
        self._started: list[BaseProcess] = []
        run.at_exit(self._kill_all)

    def event(self) -> Any:
        return self._context.Event()

    def start(self, job: Job, *arguments: Any, environment: Mapping[str, str] | None = None) -> "Started":
        """Starts a process that calls `job`."""
        answer = self._run.folder / f"answer-{next(_numbers)}.json"
        process = self._context.Process(target=_call, args=(answer, job, arguments, dict(environment or {})))
        if not self._run.device.is_gpu:
            gc.freeze()  # a forked process need not look at what the libraries hold
        with _environment(environment or {}):
            process.start()
        self._started.append(process)
        return Started(process, answer, self._run)

    def _kill_all(self) -> None:
        for process in self._started:
            if process.is_alive():
                process.kill()


class Started:
    def __init__(self, process: BaseProcess, answer: Path, run: Run) -> None:
        self._process = process
        self._answer = answer
        self._run = run

    def result(self) -> Any:
        """Waits for the process for some minutes, as long as the run has time. Raises Failed."""
        if not self._ended():
            raise Failed("the process did not end in time")
        if self.has_failed():
            raise Failed(self.error())
        return json.loads(self._answer.read_text())["result"]

    def has_failed(self) -> bool:
        """Whether it has ended, and without a result."""
        return not self.is_alive() and (not self._answer.exists() or "error" in json.loads(self._answer.read_text()))

    def error(self) -> str:
        """Of a process that has failed."""
        if not self._answer.exists():
            return f"the process ended with the status {self._process.exitcode}"
        return str(json.loads(self._answer.read_text())["error"])

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()

    def wait_for_kill(self) -> None:
        """For a process that kills itself. Raises Failed if it ends in another way."""
        if not self._ended() or self._process.exitcode != _KILLED:
            raise Failed(f"the process was to be killed, and ended with the status {self._process.exitcode}")

    def _ended(self) -> bool:
        """False if it had to be killed."""
        self._process.join(max(1.0, min(_MOST_S, self._run.left_s - _SPARE_S)))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return False
        return True


def results(*all_started: Started) -> list[Any]:
    """Of processes that wait for each other: if one fails, or all hang, they are killed. Raises Failed with what the
    first one said."""
    end = time.monotonic() + _MOST_S
    while any(started.is_alive() for started in all_started):
        failed = next((started for started in all_started if started.has_failed()), None)
        if failed is not None or time.monotonic() > end:
            for started in all_started:
                started.kill()
            raise Failed(f"two processes did not end in {_MOST_S:.0f} s" if failed is None else failed.error())
        time.sleep(_LOOK_S)
    return [started.result() for started in all_started]


def free_port_store() -> Any:
    """The store at which two processes meet, as `torchrun` keeps one. It is there as long as the object is held."""
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def ranked(port: int, rank: int) -> dict[str, str]:
    """What `torchrun` tells each of two processes, which both see one card."""
    values = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    more = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return {name: str(value) for name, value in {**values, **more}.items()}


def _call(answer: Path, job: Job, arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    began = time.monotonic()
    try:
        result = {"result": job(*arguments), "seconds": time.monotonic() - began}
    except BaseException as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"[:1_000]}
    temporary = answer.with_suffix(".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(answer)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """For a process that reads it while it loads its libraries."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
