"""`nearline wait`: waits until everything that was sent is searchable."""

import time
from typing import TYPE_CHECKING

import click

from nearline.commands._options import InstanceReader, NumberRange, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from streams.operate.wait import Progress


@click.command()
@click.option("--timeout", type=NumberRange(min=0), default=300.0, show_default=True, metavar="S", help="Seconds.")
@instance_options
def wait(*, timeout: float, settings: Settings, instance: InstanceReader) -> None:
    """Wait until everything that was sent before is searchable, in the cold tier and in the hot tier.

    Follows the events stage by stage, has publications that are held back for later published now, and waits out a
    broker that is away. The exit status is 1 when the time is up; it then says what is behind.

    \b
    Example:
      nearline ingest events.jsonl && nearline wait --timeout 60
    """
    from nearline.ask.connections import Connections
    from nearline.ask.hot_reports import SlowestFeed
    from streams.operate.wait import Wait

    started = time.monotonic()
    connections = Connections(settings, instance)
    hot = SlowestFeed(connections, connections.generation)
    try:
        show = _draw if on_terminal() else _ignore
        Wait(connections.kafka, connections.generation, hot.positions, show, timeout_s=timeout).run()
    finally:
        hot.close()
        if on_terminal():
            click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"everything is searchable, after {time.monotonic() - started:.1f} s")


def _draw(progress: "Progress") -> None:
    left = (
        "it does not answer now" if progress.records is None else f"{progress.records} records of {progress.topic} left"
    )
    click.echo(f"\r\x1b[K{progress.stage}: {left}", nl=False, err=True)


def _ignore(_: "Progress") -> None:
    """For output that is not a terminal."""
