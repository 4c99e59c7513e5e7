"""Makes tables fit a terminal: which rows are shown where there is no room for all, and what stands beside what.

Pure functions of tables and room. Knows nothing of what stands in them.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_FAINT: Final = "dim"
_GAP: Final = 4
"""Columns between two tables that stand beside one another."""


class Row(NamedTuple):
    """`weight`: where not all rows are shown, those with the most are."""

    cells: Sequence[str | Text]
    weight: tuple[float, ...] = ()


class LongTable(NamedTuple):
    """The first `num_text` columns hold text, and are cut if the terminal is too narrow; the others hold numbers. So
    each row is one line."""

    header: Sequence[str]
    rows: Sequence[Row]
    num_text: int = 0

    @property
    def num_lines(self) -> int:
        return 1 + len(self.rows)

    def drawn(self, num_lines: int | None = None) -> Table:
        """With at most so many lines, the last of which says how many rows are left out. At least two lines."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for at, name in enumerate(self.header):
            is_text = at < self.num_text
            table.add_column(_one_line(name), justify="left" if is_text else "right", no_wrap=not is_text)
        rows = self.rows if num_lines is None or num_lines >= self.num_lines else self._heaviest(max(0, num_lines - 2))
        for row in rows:
            table.add_row(*(_one_line(cell) if at < self.num_text else cell for at, cell in enumerate(row.cells)))
        if len(rows) < len(self.rows):
            table.add_row(more(len(self.rows) - len(rows)))
        return table

    def _heaviest(self, number: int) -> list[Row]:
        """In the order in which they stand, so that they do not move about."""
        by_weight = sorted(range(len(self.rows)), key=lambda at: self.rows[at].weight, reverse=True)
        return [self.rows[at] for at in sorted(by_weight[:number])]


def more(number: int) -> Text:
    return Text(f"and {number} more", _FAINT, no_wrap=True)


def sentences_within(sentences: Sequence[Text], num_lines: int, console: Console) -> list[Text]:
    """The first ones, with all their lines, and how many more there are. Always the first one."""
    shown: list[Text] = []
    left = num_lines
    for at, sentence in enumerate(sentences):
        left -= len(sentence.wrap(console, console.width))
        is_last = at == len(sentences) - 1
        if at and left < (0 if is_last else 1):  # a line for how many more there are
            return [*shown, more(len(sentences) - at)]
        shown.append(sentence)
    return shown


class Stacks(NamedTuple):
    """Tables in stacks that stand beside one another."""

    stacks: Sequence[Sequence[LongTable]]

    @property
    def num_lines(self) -> int:
        return max(sum(table.num_lines for table in stack) for stack in self.stacks)

    def drawn(self, num_lines: int) -> RenderableType:
        """With at most so many lines. The longest tables of a stack are cut first."""
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_row(*(Group(*_stacked(stack, num_lines)) for stack in self.stacks))
        return grid


def stacks_within(console: Console, first: LongTable, second: LongTable, third: LongTable) -> Stacks:
    """As many beside one another as the terminal is wide enough for. Of two stacks the second one has the longest
    table, which is usually the second."""
    left, middle, right = (_width(console, table) for table in (first, second, third))
    if left + middle + right + 2 * _GAP <= console.width:
        return Stacks([[first], [second], [third]])
    if max(left, right) + middle + _GAP <= console.width:
        return Stacks([[first, third], [second]])
    return Stacks([[first, second, third]])


def _width(console: Console, table: LongTable) -> int:
    return Measurement.get(console, console.options, table.drawn()).maximum


def _stacked(stack: Iterable[LongTable], num_lines: int) -> list[Table]:
    tables = list(stack)
    lines = [table.num_lines for table in tables]
    while sum(lines) > num_lines and max(lines) > 0:
        lines[lines.index(max(lines))] -= 1
    return [table.drawn(number) for table, number in zip(tables, lines, strict=True) if number >= 2]


def _one_line(cell: str | Text) -> Text:
    """Cut and not wrapped, whatever words are in it."""
    text = cell.copy() if isinstance(cell, Text) else Text(cell)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
