import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nearline.cli import cli


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, f"{path} {name}")


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*found, id=found[0]) for found in _commands(cli, "nearline")]
)
def test_help_has_an_example(path: str, command: click.Command) -> None:
    assert re.search(r"Example:\n +nearline", command.help or ""), f"{path} --help"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "nearline: No such command 'nonsense'; see: nearline --help"),
        (["broker", "start", "--nonsense"], "see: nearline broker start --help"),
        (["broker", "status"], "no broker runs in"),
        (["up", "--config", "none.toml"], "nearline: the configuration none.toml cannot be read: No such file"),
        (["up", "--package", "none"], "none is no model package"),
    ],
)
def test_an_error_is_one_sentence_and_status_1(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = _run(arguments, tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_a_group_alone_shows_its_help(tmp_path: Path) -> None:
    done = _run(["broker"], tmp_path)
    assert done.returncode == 0
    assert "Commands:" in done.stdout


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearline", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
