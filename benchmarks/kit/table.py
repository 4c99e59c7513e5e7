"""What every benchmark prints: a table of figures, and the same as JSON for whoever compares runs."""

import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple


class Figure(NamedTuple):
    """One measured number. `bound` is its required minimum or maximum; None: the figure is only shown."""

    name: str
    value: float
    bound: float | None = None
    sense: Literal["at_least", "at_most"] = "at_least"

    @property
    def holds(self) -> bool:
        if self.bound is None:
            return True
        return self.value >= self.bound if self.sense == "at_least" else self.value <= self.bound


def shown(figures: Iterable[Figure]) -> Iterator[Figure]:
    """Prints each as soon as it is measured."""
    for figure in figures:
        print(f"{figure.name}: {figure.value:.4g}", flush=True)
        yield figure


def report(figures: Sequence[Figure], json_path: Path | None = None) -> int:
    """Prints what was measured (the first paragraph of the benchmark's docstring) and the table, and writes the JSON if
    asked. Returns the exit status: 1 if a bound does not hold."""
    print(f"\n{inspect.cleandoc(sys.modules['__main__'].__doc__ or '').partition(chr(10) * 2)[0]}")
    width = max(len(figure.name) for figure in figures)
    print(f"\n{'figure':<{width}}  {'value':>12}  {'bound':>14}  holds")
    for figure in figures:
        holds = "" if figure.bound is None else "yes" if figure.holds else "NO"
        print(f"{figure.name:<{width}}  {number_text(figure.value):>12}  {bound_text(figure):>14}  {holds}")
    sys.stdout.flush()
    if json_path is not None:
        rows = [
            {"figure": f.name, "value": f.value, "bound": f.bound, "sense": f.sense, "holds": f.holds} for f in figures
        ]
        json_path.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(figure.holds for figure in figures) else 1


def bound_text(figure: Figure) -> str:
    if figure.bound is None:
        return ""
    return f"{'>=' if figure.sense == 'at_least' else '<='} {number_text(figure.bound)}"


def number_text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def read_json(json_path: Path) -> list[Figure]:
    """The figures that another benchmark has written."""
    rows = json.loads(json_path.read_text())
    return [Figure(row["figure"], row["value"], row["bound"], row["sense"]) for row in rows]
