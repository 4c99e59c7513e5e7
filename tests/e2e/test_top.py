"""`nearline top` on a terminal, as an operator starts it."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from threading import Thread
from typing import Final

import pytest

from nearline.pipeline import Pipeline
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

_ROWS, _COLUMNS = 200, 160
_CONTROL: Final = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def test_it_shows_the_running_instance_until_q(pipeline: Pipeline) -> None:
    user, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    before = termios.tcgetattr(program)
    shown: list[bytes] = []
    Thread(target=_read, args=(user, shown.append), daemon=True).start()
    command = [sys.executable, "-m", "nearline", "top", "--data-dir", str(pipeline.data_dir)]
    # What runs the tests may have told its children another size.
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(_COLUMNS), "LINES": str(_ROWS)}
    with subprocess.Popen(command, stdin=program, stdout=program, stderr=program, env=environment) as top:
        try:
            for text in ("generation", "encode-blue-0", "post-contexts", "serving", "all "):
                until(lambda text=text: text in _text(shown), f"{text} on the terminal", 120, 0.2)  # type: ignore[misc]
            until(lambda: re.search(r"contexts +posts +\d+ +\S+( s)? +\d", _text(shown)) is not None, "rates", 60, 0.2)
            os.write(user, b"q")
            assert top.wait(60) == 0
        finally:
            top.kill()
    until(lambda: b"\x1b[?1049l" in b"".join(shown), "the screen of before")
    assert termios.tcgetattr(program) == before
    os.close(program)
    os.close(user)


def _text(shown: list[bytes]) -> str:
    return _CONTROL.sub(b"", b"".join(shown)).decode(errors="replace")


def _read(user: int, take: Callable[[bytes], None]) -> None:
    while True:
        try:
            take(os.read(user, 65536))
        except OSError:
            return
