"""What commands print: tables for people, JSON for scripts."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from schemas.ids import Micros, Millis
from schemas.times import to_rfc3339


def print_json(value: Any) -> None:
    """One line."""
    click.echo(msgspec.json.encode(value).decode())


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; None is a dash, numbers are to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [all(_is_number(row[at]) for row in cells) and bool(cells) for at in range(len(header))]
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    for row in [list(header), *cells]:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def time_of(timestamp_ms: Millis) -> str:
    return to_rfc3339(Micros(timestamp_ms * 1000))


def on_terminal() -> bool:
    """Whether progress may be drawn; it goes to stderr."""
    return sys.stderr.isatty()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).removeprefix("-").isdigit()
