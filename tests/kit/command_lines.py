"""Parses a command line as `nearline` would, and runs nothing."""

from collections.abc import Sequence
from typing import Any

import click

from nearline.cli import cli


def parse_command_line(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The command's path, such as `generations promote`, and its parameters. `words` without `nearline`. Raises
    UsageError."""
    command: click.Command = cli
    context = click.Context(cli, info_name="nearline")
    left, path = list(words), []
    while isinstance(command, click.Group):
        if not left:
            raise click.UsageError("a command is missing")
        inner = command.get_command(context, left[0])
        if inner is None:
            raise click.UsageError(f"{left[0]} is no command of {command.name}")
        path.append(left.pop(0))
        command, context = inner, click.Context(inner, parent=context, info_name=path[-1])
    return " ".join(path), command.make_context(path[-1], left).params
