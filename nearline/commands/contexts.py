"""`nearline contexts`: what an operator may have to do for the context stage."""

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.settings import Settings


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
    is lost.

    \b
    Example:
      nearline contexts rebuild
    """
    from nearline.connect import Connections
    from streams.rebuild import rebuild_offsets

    mended = rebuild_offsets(Connections(settings, instance).kafka)
    click.echo(f"{len(mended)} offsets brought back" if mended else "nothing was lost")
