"""Records of generations, as the topic `generations` holds them."""

from datetime import UTC, datetime
from typing import Any

from schemas.generations import GenerationRecord, PackageSource, PlaceName, Pointer, Record, State
from schemas.ids import Generation
from streams.generations.state import Generations

AT = datetime(2026, 1, 5, 10, tzinfo=UTC)


def generation_record(
    name: str, state: State = "serving", place: PlaceName | None = "blue", **fields: Any
) -> GenerationRecord:
    package = PackageSource(folder=f"/models/{name}")
    return GenerationRecord(Generation(name), state, place, package, f"digest of {name}", AT, **fields)


def founded(name: str = "a-1") -> Generations:
    """A log with one generation, which serves."""
    return Generations({Generation(name): generation_record(name)}, Pointer(Generation(name)))


def two_live(other: State, **pointer: Any) -> Generations:
    """`a-1` serves at blue, and `b-2` has this state at green."""
    records = [generation_record("a-1"), generation_record("b-2", other, "green")]
    kept = Generation("b-2") if other == "kept" else None
    return Generations({record.id: record for record in records}, Pointer(Generation("a-1"), kept, **pointer))


def next_records(state: Generations) -> list[Record]:
    """Step by step: `a-1` serves, then `b-2` is ready beside it, then `b-2` serves and `a-1` is kept. Then nothing."""
    if state.serving is None:
        return _records(founded())
    if state.serving.id == "b-2":
        return []
    if "b-2" not in state.records:
        return [generation_record("b-2", "ready", "green")]
    kept, serving = generation_record("a-1", "kept"), generation_record("b-2", "serving", "green")
    return [kept, serving, Pointer(serving.id, kept.id)]


def _records(state: Generations) -> list[Record]:
    return [*state.records.values(), *([] if state.pointer is None else [state.pointer])]
