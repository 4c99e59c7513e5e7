"""`nearline dead-letters`: what could not be done, and sending it back."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table, time_of
from nearline.settings import Settings

if TYPE_CHECKING:
    from streams.dead_letter_box import DeadLetter
    from streams.settings import KafkaSettings


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that can never succeed, and send them back once the cause is mended.

    A letter's id is its place, PARTITION:OFFSET.

    \b
    Example:
      nearline dead-letters list
      nearline dead-letters show 0:12
      nearline dead-letters replay 0:12 3:7
    """


@dead_letters.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON lines.")
@instance_options
def list_(*, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print all dead letters: id, time, stage, source topic, partition and offset, cause.

    \b
    Example:
      nearline dead-letters list --json
    """
    kafka = _kafka(settings, instance)
    if as_json:
        for letter in _all(kafka):
            print_json(_summary(letter))
    else:
        rows = [_summary(letter) for letter in _all(kafka)]
        header = ("id", "at", "stage", "topic", "partition", "offset", "cause")
        print_table(header, [[row[name] for name in header] for row in rows])


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@instance_options
def show(*, letter_id: str, settings: Settings, instance: InstanceReader) -> None:
    """Print one dead letter as a JSON object, with its key and value.

    \b
    Example:
      nearline dead-letters show 0:12
    """
    letter = _chosen(_kafka(settings, instance), (letter_id,))[0]
    print_json({**_summary(letter), "key": _text(letter.key), "value": _text(letter.value)})


@dead_letters.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every letter instead of chosen ones.")
@instance_options
def replay(*, letter_ids: tuple[str, ...], every: bool, settings: Settings, instance: InstanceReader) -> None:
    """Send dead letters back.

    What the context stage reads is sent to its topic again as it was; for a letter of a later stage the entity is
    published again. The letters stay where they are, so a letter that is sent back twice counts twice.

    \b
    Example:
      nearline dead-letters replay 0:12 3:7
      nearline dead-letters replay --all
    """
    from streams.dead_letter_box import send_back

    if every == bool(letter_ids):
        raise click.UsageError("give the ids of dead letters, or --all")
    kafka = _kafka(settings, instance)
    num_sent = send_back(kafka, _all(kafka) if every else _chosen(kafka, letter_ids))
    click.echo(f"{num_sent} sent back")


def _kafka(settings: Settings, instance: InstanceReader) -> "KafkaSettings":
    from nearline.connect import Connections

    return Connections(settings, instance).kafka


def _all(kafka: "KafkaSettings") -> "Iterator[DeadLetter]":
    from streams.dead_letter_box import letters
    from streams.lag import OffsetReader

    with closing(OffsetReader(kafka)) as reader:
        yield from letters(kafka, reader)


def _chosen(kafka: "KafkaSettings", letter_ids: tuple[str, ...]) -> "list[DeadLetter]":
    from streams.dead_letter_box import chosen, parse_id
    from streams.lag import OffsetReader

    ids = [parse_id(text) for text in letter_ids]
    with closing(OffsetReader(kafka)) as reader:
        return chosen(kafka, reader, ids)


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {"id": str(letter.id), "at": time_of(letter.died_ms), **letter.cause._asdict()}


def _text(body: bytes | None) -> str | None:
    """JSON as it was sent; what is no UTF-8 is shown with replacement characters."""
    return None if body is None else body.decode("utf-8", "replace")
