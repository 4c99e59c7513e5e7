"""`nearline contexts`: mends the context stage after its consumer group was lost."""

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
    """Restore the offsets of a lost consumer group from what the rows have counted.

    Without these offsets the stage refuses to go on, because it would count events twice. Nothing is counted again and
    nothing is lost. Records that retention deleted before they were read are lost: they are named, with the mend.

    \b
    Example:
      nearline contexts rebuild
    """
    from nearline.ask.connections import Connections
    from streams.contexts.rebuild import rebuild_offsets
    from streams.operate.acknowledge import missed_by_contexts

    kafka = Connections(settings, instance).kafka
    restored = rebuild_offsets(kafka)
    click.echo(f"{len(restored)} offsets brought back" if restored else "no offset was lost")
    for sentence in missed_by_contexts(kafka):
        click.echo(sentence)
