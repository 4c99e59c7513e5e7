"""The command line: a group that finds its commands in `nearline/commands/` and imports only the one that is called.

Every error ends as one sentence on stderr, with exit status 1. Knows no command by name.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

import click

from nearline import commands
from nearline.errors import is_ours

_INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it."""


class LazyGroup(click.Group):
    """`nearline/commands/dead_letters.py` holds the click command `dead_letters`, called as `nearline dead-letters`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        files = Path(commands.__path__[0]).glob("[!_]*.py")
        return sorted(file.stem.replace("_", "-") for file in files)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"nearline.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nearline")
def cli() -> None:
    """From a live event to 2000 candidates in seconds.

    \b
    Example:
      nearline up --port 8080
      nearline ingest events.jsonl && nearline wait
      nearline retrieve --member m1 -k 10
    """


def main() -> NoReturn:
    """The console script."""
    try:
        status = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, such as `head`, has ended. Python would fail again when it flushes its buffer. The
        # status is the one that click gives where it notices this itself.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(_INTERRUPTED)
    except Exception as error:
        if _is_a_bug(error) and os.environ.get("NEARLINE_LOG_LEVEL", "").lower() == "debug":
            raise
        click.echo(f"nearline: {_sentence(error)}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _run() -> object:
    try:
        return cli.main(prog_name="nearline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "nearline"
        return f"{_usage(error)}; see: {path} --help"
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message())
    if isinstance(error, OSError) and error.strerror:
        # Without the number that Python puts before it.
        files = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return _one_line(f"{files}: {error.strerror}" if files else error.strerror)
    if _is_a_bug(error):
        return f"{type(error).__name__}: {_one_line(str(error))} (NEARLINE_LOG_LEVEL=debug shows where)"
    return _one_line(str(error))


def _usage(error: click.UsageError) -> str:
    sentence = _one_line(error.format_message()).rstrip(".")
    expected = error.param.type if isinstance(error, click.BadParameter) and error.param is not None else None
    if isinstance(expected, click.IntRange | click.FloatRange):
        # Click would say of a word that it is "not a valid integer range".
        return f"{sentence.partition(': ')[0]}: give {_range(expected)}"
    return sentence


def _range(expected: click.IntRange | click.FloatRange) -> str:
    low = f"{'above' if expected.min_open else 'from'} {expected.min}" if expected.min is not None else ""
    high = f"{'below' if expected.max_open else 'to'} {expected.max}" if expected.max is not None else ""
    return " ".join(filter(None, ("a whole number" if isinstance(expected, click.IntRange) else "a number", low, high)))


def _is_a_bug(error: Exception) -> bool:
    """False for errors of our packages, of the system and of click: their sentence tells the user enough."""
    return not is_ours(error) and not isinstance(error, OSError | click.ClickException)


def _one_line(text: str) -> str:
    return " ".join(text.split())
