"""`nearline generations`: shows which generations there are, builds another, lets it serve, and goes back."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from nearline.commands._generation_acts import build, promote, retire, rollback
from nearline.commands._generation_gate import gate
from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from streams.kafka.offsets import OffsetReader
    from streams.settings import KafkaSettings


@click.group()
def generations() -> None:
    """Look at the generations, each a model package with everything that was made with it; replace the serving one.

    \b
    Example:
      nearline generations list
      nearline generations build my-package --wait
      nearline generations gate my-package-0123abcd
      nearline generations promote my-package-0123abcd
    """


for command in (build, gate, promote, rollback, retire):
    generations.add_command(command)


@generations.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def list_(*, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print every generation with its state and place, and how far one is that is being built.

    \b
    Example:
      nearline generations list
      nearline generations list --json
    """
    from nearline.commands._generation_views import list_json, print_list
    from streams.generations.log import read_generations
    from streams.generations.progress import read_progress

    with _broker(settings, instance) as (kafka, reader):
        state = read_generations(kafka)
        now = datetime.now(UTC)
        progresses = {record.id: read_progress(reader, record, now) for record in state.live}
    if as_json:
        print_json(list_json(state, progresses))
    else:
        print_list(state, progresses)


@generations.command()
@click.argument("generation", metavar="G")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def show(*, generation: str, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print one generation: where it lies, its groups, topics and collections, its gate, and who did what when and why.

    \b
    Example:
      nearline generations show demo-0123abcd
    """
    from nearline.commands._generation_views import print_show, show_json
    from schemas.ids import Generation
    from streams.generations.acts import known
    from streams.generations.log import read_generations
    from streams.generations.progress import read_progress

    with _broker(settings, instance) as (kafka, reader):
        record = known(read_generations(kafka), Generation(generation))
        progress = read_progress(reader, record, datetime.now(UTC))
    if as_json:
        print_json(show_json(record, progress))
    else:
        print_show(record, progress)


@contextmanager
def _broker(settings: Settings, instance: InstanceReader) -> "Iterator[tuple[KafkaSettings, OffsetReader]]":
    from nearline.ask.connections import Connections
    from streams.kafka.offsets import OffsetReader

    kafka = Connections(settings, instance).kafka
    with closing(OffsetReader(kafka)) as reader:
        yield kafka, reader
