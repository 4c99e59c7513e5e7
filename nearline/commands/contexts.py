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
    from streams.generations.log import read_generations
    from streams.operate.acknowledge import missed_by_contexts

    kafka = Connections(settings, instance).kafka
    versions = read_generations(kafka).context_versions
    num_restored = sum(len(rebuild_offsets(kafka, version)) for version in versions)
    click.echo(f"{num_restored} offsets brought back" if num_restored else "no offset was lost")
    for sentence in (sentence for version in versions for sentence in missed_by_contexts(kafka, version)):
        click.echo(sentence)
