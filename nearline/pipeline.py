"""Runs a whole pipeline as a user does: starts `nearline up` as a process, and calls the other commands.

The demo, the adversary, the end-to-end tests and the benchmarks use it. Knows commands and what they print, and nothing
of how any part works.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from nearline.errors import NearlineError, NotRunning, StartFailed
from nearline.settings.instance import Instance, read_instance
from retriever.client import RetrieverClient

START_S: Final = 300.0
"""On two busy cores. Two models are loaded and a broker is prepared, which Maven may have to fetch first."""
STOP_S: Final = 25.0
"""`nearline up` promises to stop within 20 s."""
ORPHANS_S: Final = 10.0
"""How long children may live after `nearline up` was killed."""
COMMAND_S: Final = 600.0
_TAIL_CHARS: Final = 3_000
_NEARLINE: Final = (sys.executable, "-m", "nearline")


class CommandFailed(NearlineError):
    """A command ended with another status than 0. The message holds its stderr."""


class Pipeline:
    """A pipeline on one data folder. `start` and `stop` may be called in turn; as a context manager it starts and stops
    once."""

    def __init__(
        self,
        data_dir: Path,
        *,
        package: Path | None = None,
        environment: Mapping[str, str] | None = None,
        up: Sequence[str] | None = None,
    ) -> None:
        """`environment` holds settings, such as NEARLINE_HOT__WINDOW_S. `up` is called in place of `nearline up`,
        without flags."""
        self.data_dir = data_dir
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._up_command = up or [
            *(*_NEARLINE, "up", "--port", "0"),
            *(["--package", str(package)] if package is not None else []),
        ]
        self._environment = {**os.environ, "NEARLINE_DATA_DIR": str(data_dir), **(environment or {})}
        self._up: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            with suppress(StartFailed):
                self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            self.stop()
        except StartFailed:
            if kind is None:
                raise

    @property
    def instance(self) -> Instance:
        """Raises NotRunning."""
        return read_instance(self.data_dir)

    def start(self, timeout_s: float = START_S) -> float:
        """Returns when it prints `ready`, with the seconds that this took. Raises StartFailed."""
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            self._up = subprocess.Popen(
                self._up_command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        if _first_line(self._up, timeout_s) != "ready":
            raise StartFailed(f"nearline up did not get ready; its log ends with:\n{self.log_tail()}")
        return time.monotonic() - began

    def stop(self) -> float:
        """Sends SIGTERM, and returns the seconds until every process has ended; 0 if nothing ran. Raises StartFailed
        where a process stayed."""
        if self._up is None:
            return 0.0
        process, self._up = self._up, None
        descendants = _descendants(process.pid)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        assert process.stdout is not None
        process.stdout.close()
        _, left = psutil.wait_procs(descendants, timeout=1)
        for child in left:
            child.kill()
        if status != 0 or left:
            raise StartFailed(
                f"nearline up ended with status {status} and left {len(left)} processes; "
                f"its log ends with:\n{self.log_tail()}"
            )
        return time.monotonic() - began

    def kill(self) -> None:
        """Sends SIGKILL to `nearline up` alone, and returns when its children have ended too. Raises StartFailed."""
        if self._up is None:
            return
        process, self._up = self._up, None
        descendants = _descendants(process.pid)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        _, left = psutil.wait_procs(descendants, timeout=ORPHANS_S)
        if left:
            raise StartFailed(f"{len(left)} processes outlived nearline up by {ORPHANS_S:.0f} s")

    def run(self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = COMMAND_S) -> str:
        """What a command printed. `stdin` is its standard input. Raises CommandFailed."""
        done = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            words = " ".join(map(str, arguments[:3]))
            raise CommandFailed(f"nearline {words}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def attempt(
        self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, whatever its exit status."""
        return subprocess.run(
            [*_NEARLINE, *map(str, arguments)],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self._environment,
            check=False,
        )

    def ask(self, *arguments: str | Path) -> Any:
        """The answer of a command that takes `--json`."""
        answer: Any = json.loads(self.run(*arguments, "--json"))
        return answer

    def lines(self, *arguments: str | Path, stdin: str | None = None) -> list[Any]:
        """The objects that a command prints as JSON lines."""
        return [json.loads(line) for line in self.run(*arguments, stdin=stdin).splitlines()]

    def ingest(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.run("ingest", "-", stdin="".join(json.dumps(event) + "\n" for event in events))

    def wait(self, timeout_s: float = COMMAND_S) -> None:
        """Waits until everything that was sent is searchable."""
        self.run("wait", "--timeout", str(timeout_s), timeout_s=timeout_s + 60)

    def client(self) -> RetrieverClient:
        """A client of the retriever, which the caller closes. Raises NotRunning."""
        url = self.instance.url
        if url is None:
            raise NotRunning(self.data_dir)
        return RetrieverClient(url)

    def log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-_TAIL_CHARS:] if self.log_file.exists() else ""


def _first_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """Empty when the process printed no line in time, or ended."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().strip() if selector.select(timeout_s) else ""


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
