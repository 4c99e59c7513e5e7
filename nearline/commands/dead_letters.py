"""`nearline dead-letters`: shows the records that no stage could process, sends them back, or drops them."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from nearline.commands._letter_options import filter_options, make_selection, repeated_options, selection_options
from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table, time_of
from nearline.settings.settings import Settings
from schemas.printable import printable

if TYPE_CHECKING:
    from streams.kafka.offsets import OffsetReader
    from streams.operate.dead_letter_box import DeadLetter, Selection
    from streams.operate.dead_letter_page import LetterPage
    from streams.settings import KafkaSettings

_PAGE: Final = 20
_MOST_CAUSES: Final = 20
_LETTER_CHARS: Final = {"id": 40, "at": 40, "stage": 20, "topic": 40, "key": 40, "cause": 100}
"""The columns of the table of letters, and how long a cell may be."""


class _Broker(NamedTuple):
    kafka: "KafkaSettings"
    reader: "OffsetReader"


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that can never succeed; send them back once the cause is mended, or drop them.

    A letter's id is its place, PARTITION:OFFSET.

    \b
    Example:
      nearline dead-letters list
      nearline dead-letters show 0:12
      nearline dead-letters replay 0:12 3:7
      nearline dead-letters drop --cause "text is empty"
    """


@dead_letters.command("list")
@filter_options
@click.option("--after", metavar="ID", help="Begin behind this letter.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"At most this many letters; {_PAGE} without --json."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: all letters, and no sums.")
@instance_options
def list_(
    *,
    cause: str | None,
    older_than_s: float | None,
    after: str | None,
    limit: int | None,
    as_json: bool,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Print how many dead letters there are of each cause, and the first of them.

    Letters that were replayed or dropped are left out. Causes that differ only in the words they quote count as one.

    \b
    Example:
      nearline dead-letters list
      nearline dead-letters list --cause "24 h past" --older-than 7d --json
    """
    from streams.operate.dead_letter_box import letters, parse_id
    from streams.operate.dead_letter_page import read_page

    after_id = None if after is None else parse_id(after)
    with _broker(settings, instance) as broker:
        selected = letters(*broker, make_selection((), cause, older_than_s))
        if as_json:
            behind = (letter for letter in selected if after_id is None or letter.id > after_id)
            for letter in islice(behind, limit):
                print_json(_summary(letter))
        else:
            page = read_page(selected, after_id, limit or _PAGE)
            if page.num_by_cause:
                _print_page(page, after)
            else:
                filters = {"--cause": cause, "--older-than": older_than_s}
                names = " and ".join(name for name, value in filters.items() if value is not None)
                click.echo(f"there is no dead letter{f' that fits {names}' if names else ''}")


def _print_page(page: "LetterPage", after: str | None) -> None:
    causes = page.num_by_cause.most_common(_MOST_CAUSES)
    print_table(
        ("letters", "stage", "topic", "cause"), [(number, *_cells(cause, (20, 40, 100))) for cause, number in causes]
    )
    if len(page.num_by_cause) > len(causes):
        click.echo(f"and {len(page.num_by_cause) - len(causes)} more causes")
    click.echo()
    if not page.letters:
        click.echo(f"there is none behind {after}")
        return
    rows = [_summary(letter) for letter in page.letters]
    print_table(
        tuple(_LETTER_CHARS), [_cells([row[name] for name in _LETTER_CHARS], _LETTER_CHARS.values()) for row in rows]
    )
    if page.num_more:
        command = f"nearline dead-letters list --after {page.letters[-1].id} {repeated_options(leave_out='after')}"
        click.echo(f"and {page.num_more} more: {command.rstrip()}")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all of the value.")
@instance_options
def show(*, letter_id: str, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print one dead letter with its key and value.

    \b
    Example:
      nearline dead-letters show 0:12
    """
    from streams.operate.dead_letter_box import letters

    with _broker(settings, instance) as broker:
        (letter,) = letters(*broker, make_selection((letter_id,)))
    fields = {**_summary(letter), "value": _text(letter.value)}
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        click.echo(f"{name:<9}  {'-' if value is None else printable(str(value), 2_000)}")


@dead_letters.command()
@selection_options
@instance_options
def replay(*, selection: "Selection", settings: Settings, instance: InstanceReader) -> None:
    """Send dead letters back, each once.

    What the context stage reads is sent to its topic again as it was; for a letter of a later stage the entity is
    published again. A letter is marked in the transaction that sends it: it is gone from the list, and a command that
    is killed and called again sends nothing twice. What fails again is a new dead letter.

    \b
    Example:
      nearline dead-letters replay 0:12 3:7
      nearline dead-letters replay --cause "24 h past"
      nearline dead-letters replay --all
    """
    from streams.operate.dead_letter_replay import replay

    with _broker(settings, instance) as broker:
        num_sent, num_stuck = replay(*broker, selection)
        click.echo(f"{num_sent} sent back")
        if num_stuck:
            click.echo(f"{num_stuck} have no key, so nothing can be published again for them; drop them", err=True)
        _delete_marked(broker)


@dead_letters.command()
@selection_options
@instance_options
def drop(*, selection: "Selection", settings: Settings, instance: InstanceReader) -> None:
    """Put dead letters away for good: they are in no list and no number any more.

    Records before the first letter that is left are deleted at once, the others with their topic's retention.

    \b
    Example:
      nearline dead-letters drop 0:12
      nearline dead-letters drop --cause "text is empty" --older-than 7d
    """
    from streams.operate.dead_letter_replay import drop

    with _broker(settings, instance) as broker:
        click.echo(f"{drop(*broker, selection)} dropped")
        _delete_marked(broker)


def _delete_marked(broker: _Broker) -> None:
    """Deletes records that are not needed any more. Where that fails the letters stay marked, and count for nothing."""
    from streams.errors import StreamsError
    from streams.operate.dead_letter_replay import clear

    try:
        clear(*broker)
    except StreamsError as error:
        click.echo(f"their records stay until the topic's retention: {error}", err=True)


@contextmanager
def _broker(settings: Settings, instance: InstanceReader) -> Iterator[_Broker]:
    from nearline.ask.connections import Connections
    from streams.kafka.offsets import OffsetReader

    kafka = Connections(settings, instance).kafka
    with closing(OffsetReader(kafka)) as reader:
        yield _Broker(kafka, reader)


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "at": time_of(letter.died_ms),
        **letter.cause._asdict(),
        "key": _text(letter.key),
    }


def _cells(row: Iterable[object], chars: Iterable[int]) -> list[object]:
    """Cut to these lengths, and without characters that would move the terminal's cursor."""
    return [None if cell is None else printable(str(cell), most) for cell, most in zip(row, chars, strict=True)]


def _text(body: bytes | None) -> str | None:
    """JSON as it was sent. Bytes that are no UTF-8 are shown as replacement characters."""
    return None if body is None else body.decode("utf-8", "replace")
