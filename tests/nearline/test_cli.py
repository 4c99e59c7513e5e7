import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nearline.cli import _sentence, cli
from tests.kit.commands import Commands


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["up", "--port", "abc"],
            "Invalid value for '--port': give a whole number from 0 to 65535; see: nearline up",
        ),
        (["up", "--port", "70000"], "Invalid value for '--port': give a whole number from 0 to 65535; see"),
        (["up", "--data-dir", "/proc/x"], "data_dir: /proc/x cannot be made or written (No such file or directory)"),
        (
            ["up", "--data-dir", ""],
            "Invalid value for '--data-dir': it is empty; name a folder, or leave it out; see: ",
        ),
        (
            ["evaluate", "--events", "e", "--device", "gpu"],
            "'--device': give auto, cpu, cuda, or cuda:N such as cuda:0",
        ),
        (["generations", "build", "p", "--rate", "nan"], "Invalid value for '--rate': give a number above 0; see: "),
        (["broker", "start", "--data-dir", "/proc/x"], "data_dir: /proc/x/kafka cannot be made or written"),
        (["broker", "status", "--data-dir", "a b"], "start it with: nearline broker start --data-dir '/"),
        (["status", "--data-dir", "a b"], "start it with: nearline up --data-dir '/"),
        (["export", "--data-dir", "a b", "--out", "o"], "start it with: nearline up --data-dir '/"),
        (["export", "--out", "/proc/x"], "out: /proc/x cannot be made or written (No such file or directory); choose"),
        (["evaluate", "--events", "e", "--json", "/proc/x/f"], "'--json': there is no folder /proc/x; make it, or "),
        (["evaluate", "--events", "e", "--picture", "/proc/x/f"], "'--picture': there is no folder /proc/x; make it"),
        (["generations", "gate", "g", "--json", "/proc/x/f"], "'--json': there is no folder /proc/x; make it, or name"),
        (["chaos", "--faults", "0", "--no-crash-points", "--json", "/proc/x/f"], "'--json': there is no folder /proc"),
        (["train", "--events", "none", "--out", "/proc/x/y"], "out: /proc/x cannot be made or written (No such file"),
        (["package", "create", ".", "--out", "/proc/x/y"], "out: /proc/x cannot be made or written (No such file"),
        (["ingest", "--shift-to-now", "e", "--data-dir", "/proc/x"], "data_dir: /proc/x cannot be made or written (No"),
    ],
)
def test_an_error_says_what_to_do(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e").touch()
    if "/proc/x" in arguments and arguments[0] in ("export", "ingest"):  # whose broker is looked for first
        monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    ran = Commands()(*arguments)
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (1, "", 1), ran.err
    assert sentence in ran.err


def test_what_the_system_says_that_no_command_foresees_names_the_file_and_no_number() -> None:
    assert _sentence(FileNotFoundError(2, "No such file or directory", "/proc/x")) == (
        "/proc/x: No such file or directory"
    )
    assert _sentence(OSError(28, "No space left on device")) == "No space left on device"
    assert _sentence(OSError("somebody's own words")) == "somebody's own words"


def test_a_wrong_option_of_kafka_ends_up_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_KAFKA__OPTIONS", '{"security.protocl": "ssl"}')
    ran = Commands()("up", "--data-dir", tmp_path / "data")
    assert (ran.status, ran.err) == (1, 'nearline: kafka.options: No such configuration property: "security.protocl"\n')
    assert list(tmp_path.iterdir()) == []


def test_a_group_alone_shows_its_help(tmp_path: Path) -> None:
    done = _run(["broker"], tmp_path)
    assert done.returncode == 0
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["broker"], ["models", "publish", "--help"]])
def test_where_nobody_reads_on_it_ends_without_a_word(arguments: list[str], tmp_path: Path) -> None:
    """As in `nearline | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run(arguments, tmp_path, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def _run(arguments: list[str], folder: Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nearline", *arguments]
    return subprocess.run(
        command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
