"""Commands of nearline, run in this process as the console script runs them: a process of its own costs a second of a
core, most of it imports. Each command has one test somewhere that starts it as a user does."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from nearline import cli
from nearline.pipeline import Pipeline


def run_command(
    arguments: Sequence[str | Path],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    on_terminal: bool = False,
) -> subprocess.CompletedProcess[str]:
    """What `nearline ARGUMENTS` leaves behind, with this stdin, and this environment beside ours. `on_terminal`: its
    stderr is one."""
    assert threading.current_thread() is threading.main_thread(), "what is replaced is replaced for all threads"
    words = ["nearline", *map(str, arguments)]
    out, err = _Text(), _Terminal() if on_terminal else _Text()
    with _replaced(words, stdin, environment or {}), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(words, status, out.value(), err.value())


class CommandResult(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


class Commands:
    """`commands("status", "--json")` runs a command in this process, for the instance in `data_dir` if there is one."""

    def __init__(self, data_dir: Path | None = None, *, on_terminal: bool = False) -> None:
        self._options: list[str | Path] = [] if data_dir is None else ["--data-dir", data_dir]
        self._on_terminal = on_terminal

    def __call__(self, *arguments: str | Path) -> CommandResult:
        done = run_command([*arguments, *self._options], on_terminal=self._on_terminal)
        return CommandResult(done.returncode, done.stdout, done.stderr)


class QuickPipeline(Pipeline):
    """A pipeline whose commands run here; `nearline up` and what it starts are processes as ever."""

    def attempt(
        self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 0.0
    ) -> subprocess.CompletedProcess[str]:
        """pytest's time limit is the only one."""
        return run_command(arguments, stdin=stdin or "", environment=self._environment)


class _Text(io.TextIOWrapper):
    """Text with a `buffer` of bytes beneath, as stdin and stdout have."""

    def __init__(self, text: str = "") -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)

    def value(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


class _Terminal(_Text):
    def isatty(self) -> bool:
        return True


@contextmanager
def _replaced(words: list[str], stdin: str, environment: Mapping[str, str]) -> Iterator[None]:
    with (
        patch.object(sys, "argv", words),
        patch.object(sys, "stdin", _Text(stdin)),
        patch.dict(os.environ, environment, clear=False),
    ):
        yield
