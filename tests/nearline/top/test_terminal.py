"""Drawing on a real terminal, and how it is left."""

import os
import pty
import signal
import termios
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Final

import pytest
from rich.console import Console
from rich.text import Text

from nearline.errors import NoTerminal
from nearline.top.terminal import Wakeup, check_terminal, draw_until_quit
from tests.kit.waiting import until

ENTERED: Final = b"\x1b[?1049h"
LEFT: Final = b"\x1b[?1049l"
CURSOR: Final = b"\x1b[?25h"


class Terminal:
    """A pseudo-terminal whose user is the test."""

    def __init__(self) -> None:
        self.user, self.program = pty.openpty()
        self.shown = b""
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self.user, 4096)
            except OSError:
                return

    def press(self, keys: bytes) -> None:
        os.write(self.user, keys)

    def shows(self, text: bytes) -> None:
        until(lambda: text in self.shown, f"{text!r} on the terminal")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    os.close(terminal.program)
    os.close(terminal.user)


def quit_by_key(terminal: Terminal) -> None:
    terminal.press(b"xq")


def quit_by(number: signal.Signals) -> Callable[[Terminal], None]:
    return lambda _: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "quits", [quit_by_key, quit_by(signal.SIGINT), quit_by(signal.SIGTERM)], ids=["q", "Ctrl-C", "SIGTERM"]
)
def test_it_draws_what_is_new_and_leaves_the_terminal_as_it_was(
    terminal: Terminal, quits: Callable[[Terminal], None]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    before = termios.tcgetattr(terminal.program)
    wakeup, words = Wakeup(), ["first"]

    def use() -> None:
        terminal.shows(b"first")
        words.append("second")
        wakeup.draw()
        terminal.shows(b"second")
        quits(terminal)

    user = Thread(target=use)
    user.start()
    with os.fdopen(os.dup(terminal.program), "w") as screen:
        console = Console(file=screen, force_terminal=True, width=80, height=20)
        draw_until_quit(lambda: Text(words[-1]), wakeup, console, terminal.program)
    user.join()
    wakeup.close()
    terminal.shows(LEFT)
    assert terminal.shown.index(ENTERED) < terminal.shown.index(b"first") < terminal.shown.index(LEFT)
    assert terminal.shown.rindex(CURSOR) > terminal.shown.index(b"second"), "the cursor is shown again"
    assert termios.tcgetattr(terminal.program) == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_without_a_terminal_it_names_the_other_command(terminal: Terminal) -> None:
    with open(os.devnull, "w") as nowhere:
        with pytest.raises(NoTerminal, match="nearline status prints the same once"):
            check_terminal(Console(file=nowhere), terminal.program)
        with pytest.raises(NoTerminal):
            check_terminal(Console(file=nowhere, force_terminal=True), os.open(os.devnull, os.O_RDONLY))
