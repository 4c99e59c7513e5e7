import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
import structlog

from nearline.commands._options import instance_options

CODE = """
import logging
import structlog
from nearline import log
log.configure("cold", "info")
mine = structlog.get_logger("mine")
mine.debug("not asked for")
mine.info("indexed", records=3)
logging.getLogger("library").warning("careful with %s", "this")
logging.getLogger("aiokafka.consumer").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    mine.exception("failed")
"""


ON_A_TERMINAL = """
import sys
import structlog
from nearline import log
log.configure("serve", "info")
def answer(headers):
    raise ZeroDivisionError
try:
    answer({"x-api-key": "-".join(["hun", "ter2"])})
except ZeroDivisionError:
    structlog.get_logger("mine").exception("failed")
"""


def test_a_trace_on_a_terminal_shows_no_values() -> None:
    reader, terminal_end = pty.openpty()
    with os.fdopen(reader, "rb") as terminal:
        subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stderr=terminal_end, check=True)
        os.close(terminal_end)
        printed = terminal.raw.read(100_000).decode()  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in printed
    assert "hun-ter2" not in printed, "headers hold the key"


def test_every_line_is_json_with_its_process_and_libraries_come_the_same_way() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == "", "stdout is for answers"
    assert [(line["process"], line["event"], line["level"]) for line in lines] == [
        ("cold", "indexed", "info"),
        ("cold", "careful with this", "warning"),
        ("cold", "failed", "error"),
    ]
    assert lines[0]["records"] == 3
    assert "ZeroDivisionError" in lines[2]["exception"]


@pytest.mark.parametrize(("level", "logged"), [("info", ["careful"]), ("debug", ["whispered", "careful"])])
def test_on_the_stdout_of_a_command_is_only_what_it_prints(
    level: str, logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @instance_options
    def command(**_: object) -> None:
        log = structlog.get_logger("mine")
        log.debug("whispered")
        log.warning("careful")
        click.echo("{}")

    monkeypatch.setenv("NEARLINE_LOG_LEVEL", level)
    command.main(["--data-dir", str(tmp_path)], standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.out == "{}\n"
    assert [word for word in ("whispered", "careful") if word in printed.err] == logged
