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
    """Each column is as wide as its widest cell. None is printed as a dash, and numbers are right-aligned."""
    cells = [[_cell(value) for value in row] for row in rows]
    are_numbers = [all(_is_number(row[at]) for row in cells) and bool(cells) for at in range(len(header))]
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    for row in [list(header), *cells]:
        parts = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(row, widths, are_numbers, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def time_of(timestamp_ms: Millis) -> str:
    return to_rfc3339(Micros(timestamp_ms * 1000))


def on_terminal() -> bool:
    """True where progress may be drawn, on stderr."""
    return sys.stderr.isatty()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).removeprefix("-").isdigit()
