"""All parts in the order of their importance, and about how long each takes on a large GPU.

The numbers are those of `README.md`. The trainer takes longest, so the quick ones come before it.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from benchmarks.gpu.run import Part, Run


def all_parts(run: Run) -> Iterator[Part]:
    first, *others = run.sizes.layouts
    scan, *larger_scans = run.sizes.scans
    yield _part(run, "1 correctness", 20, "correctness")
    yield _part(run, "2 encoder", 60, "encoder_speed", layout=first)
    yield _part(run, "3 hot tier", 25, "hot_tier", num_rows=scan, whole_tier=True)
    yield _part(run, "4 out of memory", 15, "out_of_memory")
    yield _part(run, "6 encode stage", 20, "encode_stage")
    yield _part(run, "5 trainer", 190, "training")
    for num_rows in larger_scans:
        yield _part(run, "3 hot tier, larger", 90, "hot_tier", num_rows=num_rows, whole_tier=False)
    for layout in others:
        needs_s = run.models.layout(layout).needs_s
        yield _part(run, f"2 encoder, {layout}", needs_s, "encoder_speed", layout=layout)


def _part(run: Run, name: str, needs_s: float, module: str, **arguments: Any) -> Part:
    """The module is loaded within the part: if a library is missing that only this part needs, the others run."""

    def measure(run: Run) -> None:
        import_module(f"benchmarks.gpu.{module}").measure(run, **arguments)

    return Part(name, needs_s if run.sizes.has_aims else 0.0, measure)
