"""`nearline contexts`: what an operator may have to do for the context stage."""

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.settings.settings import Settings


@click.group()
def contexts() -> None:
    """Mend the context stage.

    \b
    Example:
      nearline contexts rebuild
    """


@contexts.command()
@instance_options
def rebuild(settings: Settings, instance: InstanceReader) -> None:
    """Bring back the offsets of a lost consumer group from what the rows have counted.

    The stage refuses to go on without them, because it would count events twice. Nothing is counted again and nothing
    is lost. Records that retention deleted before they were read cannot be brought back: they are named, with the mend.

    \b
    Example:
      nearline contexts rebuild
    """
    from nearline.ask.connections import Connections
    from streams.contexts.rebuild import rebuild_offsets
    from streams.operate.acknowledge import missed_by_contexts

    kafka = Connections(settings, instance).kafka
    mended = rebuild_offsets(kafka)
    click.echo(f"{len(mended)} offsets brought back" if mended else "no offset was lost")
    for sentence in missed_by_contexts(kafka):
        click.echo(sentence)
