"""`nearline top`: shows what an instance does, live in a terminal."""

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.settings.settings import Settings


@click.command()
@instance_options
def top(*, settings: Settings, instance: InstanceReader) -> None:
    """Show live in the terminal what stands still, the lag and speed of every stage, freshness, tiers, generations,
    processes and dead letters. q quits.

    Where the terminal has no room for all rows, those that matter most are shown, and how many more there are.

    \b
    Example:
      nearline top
    """
    import sys

    from rich.console import Console

    from nearline.top.look import EVERY_S, Looking, take_look
    from nearline.top.screen import screen
    from nearline.top.terminal import Wakeup, check_terminal, draw_until_quit

    console, keys = Console(), sys.stdin.fileno()
    check_terminal(console, keys)
    if settings.serve.url is None:
        # Called only for its error: where nothing runs from the start, that is one sentence.
        instance()
    wakeup = Wakeup()
    looking = Looking(lambda before: take_look(settings, before), wakeup.draw, EVERY_S)
    looking.start()
    try:
        draw_until_quit(lambda: screen(looking.newest, console), wakeup, console, keys)
    finally:
        looking.stop()
