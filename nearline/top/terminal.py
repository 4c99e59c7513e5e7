"""Draws on the terminal until somebody quits, and leaves it as it was: its screen, its cursor, how it takes keys.

Knows nothing of what is drawn.
"""

import os
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from nearline.errors import NoTerminal

_QUIT: Final = b"q"
_DRAW: Final = b"d"
_REDRAW_S: Final = 1.0
"""Also while nothing is new, so that a terminal of another size is filled."""


class Wakeup:
    """A pipe by which threads and signals wake the thread that draws."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def draw(self) -> None:
        self._write(_DRAW)

    def quit(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._write(_QUIT)

    def _write(self, what: bytes) -> None:
        try:
            os.write(self._writer, what)
        except BlockingIOError:
            return  # it is awake already

    def wait(self, keys: int) -> bytes:
        """What came meanwhile, keys of the terminal `keys` too. The end of the terminal is a wish to quit."""
        readable, _, _ = select.select([keys, self._reader], [], [], _REDRAW_S)
        return b"".join(os.read(descriptor, 1024) or _QUIT for descriptor in readable)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def check_terminal(console: Console, keys: int) -> None:
    """Raises NoTerminal."""
    if not console.is_terminal or not os.isatty(keys):
        raise NoTerminal("nearline top draws on a terminal; nearline status prints the same once")


def draw_until_quit(render: Callable[[], RenderableType], wakeup: Wakeup, console: Console, keys: int) -> None:
    """Returns after q, Ctrl-C or SIGTERM. Draws at once, whenever `wakeup.draw` was called, and about each second.
    `keys` is the descriptor of the terminal's input. Call it from the main thread."""
    with (
        _quitting_signals(wakeup),
        _single_keys(keys),
        Live(console=console, screen=True, auto_refresh=False, get_renderable=render) as live,
    ):
        while True:
            live.refresh()
            if _QUIT in wakeup.wait(keys):
                return


@contextmanager
def _single_keys(keys: int) -> Iterator[None]:
    """Keys come at once, and are not shown."""
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


@contextmanager
def _quitting_signals(wakeup: Wakeup) -> Iterator[None]:
    """Nothing is interrupted: what is being drawn is drawn to its end first."""
    handlers = {number: signal.signal(number, wakeup.quit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
