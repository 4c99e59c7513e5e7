"""`nearline dead-letters`: what could not be done, sending it back, and putting it away."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table, time_of
from nearline.settings.settings import Settings
from schemas.ids import Millis
from schemas.printable import printable

if TYPE_CHECKING:
    from streams.kafka.offsets import OffsetReader
    from streams.operate.dead_letter_box import DeadLetter, Selection
    from streams.settings import KafkaSettings

P = ParamSpec("P")
R = TypeVar("R")

_PAGE: Final = 20
_MOST_CAUSES: Final = 20
_KEY_CHARS: Final = 40
_CAUSE_CHARS: Final = 100
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Broker(NamedTuple):
    kafka: "KafkaSettings"
    reader: "OffsetReader"


class _Age(click.ParamType):
    """So many seconds, minutes, hours or days, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts = re.fullmatch(r"(\d{1,9})([smhd])", str(value))
        if parts is None:
            self.fail(f"{value!r} is no age; write one such as 90s, 15m, 12h or 30d", param, ctx)
        return float(int(parts[1]) * _UNITS_S[parts[2]])


def _filters(command: Callable[P, R]) -> Callable[P, R]:
    """Given to the function as `cause` and `older_than_s`."""
    for option in (
        click.option(
            "--older-than", "older_than_s", type=_Age(), metavar="AGE", help="Only those that died so long ago: 12h."
        ),
        click.option("--cause", metavar="TEXT", help="Only those whose cause holds this text."),
    ):
        command = option(command)
    return command


def _selection(command: Callable[..., R]) -> Callable[..., R]:
    """For commands that do something to letters, which must be meant: given to the function as `wanted`."""

    @click.argument("letter_ids", metavar="[ID]...", nargs=-1)
    @click.option("--all", "every", is_flag=True, help="Every letter.")
    @_filters
    @wraps(command)
    def selecting(
        *args: object,
        letter_ids: tuple[str, ...],
        every: bool,
        cause: str | None,
        older_than_s: float | None,
        **options: object,
    ) -> R:
        some = bool(letter_ids or cause or older_than_s is not None)
        if some == every:
            raise click.UsageError("say which dead letters: give ids, --cause, --older-than, or --all")
        return command(*args, wanted=_wanted(letter_ids, cause, older_than_s), **options)

    return selecting


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
@_filters
@click.option("--after", metavar="ID", help="Begin behind this letter.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=f"Only so many; {_PAGE} without --json.")
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

    What was replayed or dropped is left out. The words in quotes are left out of the sums.

    \b
    Example:
      nearline dead-letters list
      nearline dead-letters list --cause "24 h past" --older-than 7d --json
    """
    from streams.operate.dead_letter_box import letters, parse_id

    behind = None if after is None else parse_id(after)
    with _broker(settings, instance) as broker:
        found = letters(*broker, _wanted((), cause, older_than_s))
        if as_json:
            page = (letter for letter in found if behind is None or letter.id > behind)
            for number, letter in enumerate(page, 1):
                print_json(_summary(letter))
                if number == limit:
                    break
        else:
            _print_letters(found, behind, limit or _PAGE, _given_options())


def _given_options() -> str:
    """Those on the command line but `--after`, for the same command again, quoted for a shell."""
    ctx = click.get_current_context()
    words: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        if name != "after" and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = ctx.params[name]
            words += [param.opts[0], f"{value:.0f}s" if isinstance(param.type, _Age) else str(value)]
    return shlex.join(words)


def _print_letters(letters: "Iterator[DeadLetter]", behind: Any, limit: int, options: str) -> None:
    """The sums are of all of them. `options` are those of the command that prints the next page."""
    sums: Counter[tuple[str, str, str]] = Counter()
    page: list[dict[str, Any]] = []
    num_more = 0
    for letter in letters:
        cause = letter.cause
        sums[cause.stage, cause.topic, re.sub(r"'[^']*'|\(byte \d+\)", "…", cause.cause)] += 1
        if behind is None or letter.id > behind:
            if len(page) < limit:
                page.append(_summary(letter))
            else:
                num_more += 1
    if not sums:
        click.echo("there is no dead letter")
        return
    most = sums.most_common(_MOST_CAUSES)
    print_table(
        ("letters", "stage", "topic", "cause"), [(number, *_shown(key, (20, 40, _CAUSE_CHARS))) for key, number in most]
    )
    if len(sums) > len(most):
        click.echo(f"and {len(sums) - len(most)} more causes")
    click.echo()
    header = ("id", "at", "stage", "topic", "key", "cause")
    chars = (40, 40, 20, 40, _KEY_CHARS, _CAUSE_CHARS)
    print_table(header, [_shown([row[name] for name in header], chars) for row in page])
    if num_more:
        command = f"nearline dead-letters list --after {page[-1]['id']} {options}"
        click.echo(f"and {num_more} more: {command.rstrip()}")


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
        (letter,) = letters(*broker, _wanted((letter_id,), None, None))
    found = {**_summary(letter), "value": _text(letter.value)}
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<9}  {'-' if value is None else printable(str(value), 2_000)}")


@dead_letters.command()
@_selection
@instance_options
def replay(*, wanted: "Selection", settings: Settings, instance: InstanceReader) -> None:
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
    from streams.operate.dead_letter_marks import replay

    with _broker(settings, instance) as broker:
        num_sent, num_stuck = replay(*broker, wanted)
        click.echo(f"{num_sent} sent back")
        if num_stuck:
            click.echo(f"{num_stuck} have no key, so nothing can be published again for them; drop them", err=True)
        _clear(broker)


@dead_letters.command()
@_selection
@instance_options
def drop(*, wanted: "Selection", settings: Settings, instance: InstanceReader) -> None:
    """Put dead letters away for good: they are in no list and no number any more.

    Records before the first letter that is left are deleted at once, the others with their topic's retention.

    \b
    Example:
      nearline dead-letters drop 0:12
      nearline dead-letters drop --cause "text is empty" --older-than 7d
    """
    from streams.operate.dead_letter_marks import drop

    with _broker(settings, instance) as broker:
        click.echo(f"{drop(*broker, wanted)} dropped")
        _clear(broker)


def _clear(broker: _Broker) -> None:
    """The marks hold without it."""
    from streams.errors import StreamsError
    from streams.operate.dead_letter_marks import clear

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


def _wanted(letter_ids: tuple[str, ...], cause: str | None, older_than_s: float | None) -> "Selection":
    from streams.operate.dead_letter_box import Selection, parse_id

    before_ms = None if older_than_s is None else Millis(int((time.time() - older_than_s) * 1000))
    return Selection(tuple(map(parse_id, letter_ids)) or None, cause, before_ms)


def _summary(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "at": time_of(letter.died_ms),
        **letter.cause._asdict(),
        "key": _text(letter.key),
    }


def _shown(row: Any, chars: tuple[int, ...]) -> list[object]:
    """Cells that fit, and move no cursor."""
    return [None if cell is None else printable(str(cell), most) for cell, most in zip(row, chars, strict=True)]


def _text(body: bytes | None) -> str | None:
    """JSON as it was sent; what is no UTF-8 is shown with replacement characters."""
    return None if body is None else body.decode("utf-8", "replace")
