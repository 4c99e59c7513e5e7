"""`nearline broker`: the embedded broker alone."""

import shlex
from pathlib import Path

import click

from nearline.commands._options import place_options
from nearline.errors import NearlineError
from nearline.settings.loading import load_settings
from nearline.settings.settings import Settings


@click.group()
def broker() -> None:
    """Start, stop or look at the embedded broker alone.

    \b
    Example:
      nearline broker start --data-dir /tmp/try
      nearline broker status --data-dir /tmp/try
      nearline broker stop --data-dir /tmp/try
    """


@broker.command()
@place_options
def start(data_dir: Path | None, config: Path | None) -> None:
    """Start it in the background and print its address.

    \b
    Example:
      nearline broker start --data-dir /tmp/try
    """
    from nearline.broker.embedded import EmbeddedBroker

    embedded = EmbeddedBroker(_folder(load_settings(config, data_dir)))
    embedded.start()
    click.echo(embedded.bootstrap_servers)


@broker.command()
@place_options
def stop(data_dir: Path | None, config: Path | None) -> None:
    """Stop it; its log stays. Says so when it does not run.

    \b
    Example:
      nearline broker stop --data-dir /tmp/try
    """
    from nearline.broker.embedded import EmbeddedBroker

    stopped = EmbeddedBroker(_folder(load_settings(config, data_dir))).stop()
    click.echo("stopped" if stopped else "not running")


@broker.command()
@place_options
def status(data_dir: Path | None, config: Path | None) -> None:
    """Print its address, pid and log. The exit status is 1 when it does not serve.

    \b
    Example:
      nearline broker status --data-dir /tmp/try
    """
    from nearline.broker.embedded import EmbeddedBroker

    embedded = EmbeddedBroker(_folder(load_settings(config, data_dir)))
    process = embedded.running()
    if process is None:
        command = f"nearline broker start --data-dir {shlex.quote(str(embedded.folder.parent))}"
        raise NearlineError(f"no broker runs in {embedded.folder}; start it with: {command}")
    if not embedded.serves():
        raise NearlineError(f"the broker (pid {process.pid}) runs and does not serve; see {embedded.folder}/server.log")
    click.echo(f"{embedded.bootstrap_servers} pid {process.pid} log {embedded.folder}/server.log")


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "kafka"
