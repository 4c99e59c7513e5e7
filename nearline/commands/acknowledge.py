"""`nearline acknowledge`: an operator confirms that a loss of unread records was seen and made good."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from streams.settings import KafkaSettings


@click.command()
@instance_options
def acknowledge(*, settings: Settings, instance: InstanceReader) -> None:
    """Clear the warning of `nearline status` that retention deleted records before a stage had read them.

    Do it once the loss is made good. Stop `nearline up` first: the broker refuses while a stage works. An embedded
    broker is started for it, and stopped again.

    \b
    Example:
      nearline acknowledge
    """
    from streams.operate.acknowledge import acknowledge_deleted

    del instance  # a running one would refuse
    with _running_broker(settings) as kafka:
        num_topics = 0
        for at in acknowledge_deleted(kafka):
            click.echo(f"{at.topic}: {at.number} records that the group {at.group} never read are acknowledged")
            num_topics += 1
    if not num_topics:
        click.echo("no stage has missed a record")


@contextmanager
def _running_broker(settings: Settings) -> Iterator["KafkaSettings"]:
    """The configured broker, else the embedded one, started alone. Raises AlreadyRuns, StartFailed."""
    from nearline.broker.embedded import EmbeddedBroker
    from nearline.settings.instance import locked

    if settings.kafka.bootstrap_servers is not None:
        yield settings.kafka
        return
    embedded = EmbeddedBroker(settings.data_dir / "kafka")
    servers = embedded.bootstrap_servers
    with locked(settings.data_dir):
        was_running = embedded.running() is not None
        embedded.start(dies_with_parent=not was_running)
        try:
            yield settings.kafka.model_copy(update={"bootstrap_servers": servers})
        finally:
            if not was_running:
                embedded.stop()
