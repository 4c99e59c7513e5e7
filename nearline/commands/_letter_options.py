"""The options that say which dead letters a command means."""

import shlex
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from schemas.ids import Millis
from schemas.times import duration_s

if TYPE_CHECKING:
    from streams.operate.dead_letter_box import Selection

P = ParamSpec("P")
R = TypeVar("R")


class _Age(click.ParamType):
    """A number of seconds, minutes, hours or days, such as 12h. The value is in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return duration_s(str(value))
        except ValueError:
            self.fail(f"{value!r} is no age; write one such as 90s, 15m, 12h or 30d", param, ctx)


def filter_options(command: Callable[P, R]) -> Callable[P, R]:
    """Adds `--cause` and `--older-than`, given to the function as `cause` and `older_than_s`."""
    for option in (
        click.option(
            "--older-than",
            "older_than_s",
            type=_Age(),
            metavar="AGE",
            help="Only letters at least this old, such as 12h.",
        ),
        click.option("--cause", metavar="TEXT", help="Only letters whose cause contains this text."),
    ):
        command = option(command)
    return command


def selection_options(command: Callable[..., R]) -> Callable[..., R]:
    """For commands that change letters: adds ids, the filters and `--all`, given to the function as one `selection`.
    Without any of them the command is refused, so that nobody changes every letter by mistake."""

    @click.argument("letter_ids", metavar="[ID]...", nargs=-1)
    @click.option("--all", "every", is_flag=True, help="Every letter.")
    @filter_options
    @wraps(command)
    def with_selection(
        *args: object,
        letter_ids: tuple[str, ...],
        every: bool,
        cause: str | None,
        older_than_s: float | None,
        **options: object,
    ) -> R:
        is_limited = bool(letter_ids or cause or older_than_s is not None)
        if is_limited == every:
            raise click.UsageError("say which dead letters: give ids, --cause, --older-than, or --all alone")
        return command(*args, selection=make_selection(letter_ids, cause, older_than_s), **options)

    return with_selection


def make_selection(
    letter_ids: tuple[str, ...] = (), cause: str | None = None, older_than_s: float | None = None
) -> "Selection":
    """Raises NoSuchDeadLetter for an id that is none."""
    from streams.operate.dead_letter_box import Selection, parse_id

    before_ms = None if older_than_s is None else Millis(int((time.time() - older_than_s) * 1000))
    return Selection(tuple(map(parse_id, letter_ids)) or None, cause, before_ms)


def repeated_options(leave_out: str) -> str:
    """The options of the running command line, quoted for a shell, without the one named `leave_out`."""
    ctx = click.get_current_context()
    words: list[str] = []
    for param in ctx.command.params:
        name = param.name or ""
        if name != leave_out and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = ctx.params[name]
            words += [param.opts[0], f"{value:.0f}s" if isinstance(param.type, _Age) else str(value)]
    return shlex.join(words)
