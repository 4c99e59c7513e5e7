"""The sizes as tables. `python -m nearline.sizing.page` renews those in `docs/sizing.md`; a test keeps them current."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from nearline.sizing.figures import ALL
from nearline.sizing.limits import limits
from nearline.sizing.sizes import Load, Sizes, size, worker_tokens

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "sizing.md"
LOADS: Final = (Load(1, 10_000), Load(100, 1_000_000), Load(10_000, 100_000_000))


def main() -> int:
    PAGE.write_text(renewed(PAGE.read_text()))
    return 0


def renewed(text: str) -> str:
    """The page with its tables made anew. Raises ValueError if a mark is missing."""
    tables = {"sizes": _sizes(LOADS), "limits": _limits(LOADS[0]), "figures": _figures()}
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"docs/sizing.md has no marks for {name}")
        text = before + start + table + end + after
    return text


def rows(load: Load, sizes: Sizes) -> list[tuple[str, str]]:
    """What it is, and how much of it, in words."""
    worker = "cores" if load.tokens_per_s is None else "workers"
    return [
        ("events/s", _number(load.events_per_s)),
        ("`kafka.partitions`", "too many" if sizes.partitions is None else str(sizes.partitions)),
        ("Kafka: written, before replicas", f"{_number(sizes.kafka_mb_per_s)} MB/s"),
        ("Kafka: disk of all brokers, 3 replicas", _bytes(sizes.kafka_disk)),
        ("`contexts`: workers, a core each", _number(sizes.contexts_workers)),
        ("`contexts`: disk for rows, all together", _bytes(sizes.contexts_disk)),
        ("`trending`: workers", _number(sizes.trending_workers)),
        ("contexts of posts, of members a second", _pair(sizes.post_contexts_per_s, sizes.member_contexts_per_s)),
        ("tokens/s", _number(sizes.tokens_per_s)),
        (f"`encode`: {worker} of {_number(worker_tokens(load))} tokens/s", _number(sizes.encode_workers)),
        ("`encode`: memory of a worker, beside the weights", _bytes(sizes.encode_memory)),
        ("`index`: workers", _number(sizes.index_workers)),
        ("cold tier: points", _number(sizes.points)),
        ("cold tier: memory", _bytes(sizes.cold_memory)),
        ("cold tier: disk", _bytes(sizes.cold_disk)),
        ("cold tier: nodes", _number(sizes.cold_nodes)),
        ("`hot.capacity`", _number(sizes.hot_capacity)),
        ("hot tier: reaches back", f"{sizes.hot_window_s / 3600:.1f} h"),
        ("`serve`: memory of a process", _bytes(sizes.serve_memory)),
        ("`serve`: processes", "measure one" if sizes.serve_processes is None else str(sizes.serve_processes)),
    ]


def _sizes(loads: Sequence[Load]) -> str:
    columns = [rows(load, size(load)) for load in loads]
    head = ["", *(f"{_number(load.posts_per_s)} posts/s, {_number(load.members)} members" for load in loads)]
    body = [[row[0], *(column[at][1] for column in columns)] for at, row in enumerate(columns[0])]
    return _table(head, body)


def _limits(load: Load) -> str:
    body = [[f"{_number(limit.posts_per_s)} posts/s", limit.what, limit.mend] for limit in limits(load)]
    return _table(["at", "comes to its end", "what to do"], body)


def _figures() -> str:
    body = [[f"{_number(each.value)} {each.unit}", each.what, f"`{each.file}`"] for each in ALL]
    return _table(["figure", "of", "stands in"], body)


def _table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, body)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _pair(one: float, other: float) -> str:
    return f"{_number(one)}, {_number(other)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _bytes(value: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if value >= factor:
            return f"{value / factor:,.1f} {unit}"
    return f"{value / 1e6:,.0f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
