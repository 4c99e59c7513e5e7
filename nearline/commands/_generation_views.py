"""What `nearline generations list` and `show` print of the log's records: JSON for scripts, tables for people."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import click
from msgspec import to_builtins

from indexer.cold.qdrant.names import collection_name
from nearline.commands._terminal import print_table
from schemas.generations import ContextsRecord, ContextsState, Gate, GenerationRecord
from schemas.ids import Generation, Kind
from schemas.printable import printable
from schemas.stages import encode_reads, index_reads
from schemas.times import to_micros, to_rfc3339
from schemas.topics import generation_topics
from streams.generations.progress import Progress
from streams.generations.state import Generations

Progresses = Mapping[Generation, Progress | None]

_CONTEXTS_WORDS: Final[Mapping[ContextsState, str]] = {
    "building": "rebuilt, and not compared with the serving one yet, or not equal; see: nearline rebuild contexts",
    "checked": "rebuilt; the next generation that is built takes it over",
    "live": "rebuilt; a live generation reads it",
    "retired": "retired",
}


def in_order(state: Generations) -> list[GenerationRecord]:
    """The live ones first, then the retired ones, the newest first."""
    retired = [record for record in state.records.values() if record.state == "retired"]
    return [*state.live, *sorted(retired, key=lambda record: record.since, reverse=True)]


def list_json(state: Generations, progresses: Progresses) -> dict[str, Any]:
    pointer = state.pointer
    canary = None if pointer is None or pointer.canary is None else pointer.canary
    return {
        "serving": pointer and pointer.serving,
        "kept": pointer and pointer.kept,
        "canary": canary and {"generation": canary.generation, "share": canary.share, "since": _time(canary.since)},
        "generations": [_summary(record, progresses.get(record.id)) for record in in_order(state)],
        "contexts": [_of_contexts(record) for record in _versions(state)],
        "problems": [str(damage) for damage in state.damages],
    }


def show_json(record: GenerationRecord, progress: Progress | None) -> dict[str, Any]:
    kinds: tuple[Kind, ...] = ("post", "member")
    details: dict[str, Any] = to_builtins(record)
    return {
        **details,
        **_summary(record, progress),
        "groups": [encode_reads(record.id).group, index_reads(record.id).group],
        "topics": [spec.name for spec in generation_topics(record.id)],
        "collections": [collection_name(kind, record.id) for kind in kinds],
    }


def print_list(state: Generations, progresses: Progresses) -> None:
    if not state.records:
        click.echo("there is no generation yet")
    else:
        header = ("generation", "state", "place", "since", "progress", "gate", "package")
        print_table(header, (_row(record, progresses.get(record.id)) for record in in_order(state)))
    if state.pointer is not None and state.pointer.canary is not None:
        canary = state.pointer.canary
        click.echo(
            f"\n{canary.generation} answers {canary.share * 100:g} % of the members as the canary, "
            f"since {_time(canary.since)}"
        )
    for record in _versions(state):
        click.echo(f"\nversion {record.version} of the contexts: {_CONTEXTS_WORDS[record.state]}")
    for damage in state.damages:
        click.echo(f"problem: {printable(str(damage), 500)}")


def _versions(state: Generations) -> list[ContextsRecord]:
    """Of the contexts, those that were rebuilt and are not retired."""
    return [record for version, record in sorted(state.contexts.items()) if record.state != "retired"]


def _of_contexts(record: ContextsRecord) -> dict[str, Any]:
    check = record.check
    return {
        "version": record.version,
        "state": record.state,
        "since": _time(record.since),
        "files": record.files or None,
        "check": check and {"at": _time(check.at), "holds": check.holds, "figures": to_builtins(check.figures)},
    }


def print_show(record: GenerationRecord, progress: Progress | None) -> None:
    shown = show_json(record, progress)
    rows = {
        **{name: shown[name] for name in ("id", "state", "place", "since", "package", "digest", "contexts")},
        "progress": progress_words(progress),
        **{name: ", ".join(shown[name]) for name in ("groups", "topics", "collections")},
    }
    for name, value in rows.items():
        click.echo(f"{name:<11}  {'-' if value is None else printable(str(value), 2_000)}")
    if record.gate is not None:
        click.echo(f"\ngate of {_time(record.gate.at)}: {_gate_words(record.gate)}")
        print_table(("check", "figure", "bound", "holds", "note"), _gate_rows(record.gate))
    click.echo()
    acts = ((_time(act.at), act.what, printable(act.who, 60), printable(act.reason, 200)) for act in record.history)
    print_table(("at", "act", "who", "reason"), acts)


def _summary(record: GenerationRecord, progress: Progress | None) -> dict[str, Any]:
    gate = record.gate
    return {
        "id": record.id,
        "state": record.state,
        "place": record.place,
        "since": _time(record.since),
        "package": str(record.package),
        "progress": progress and {**to_builtins(progress), "share": progress.share},
        "gate": gate and {"at": _time(gate.at), "holds": gate.holds, "figures": to_builtins(gate.figures)},
    }


def _row(record: GenerationRecord, progress: Progress | None) -> tuple[object, ...]:
    package = printable(str(record.package), 80)
    words = progress_words(progress), _gate_words(record.gate)
    return record.id, record.state, record.place, _time(record.since), *words, package


def progress_words(progress: Progress | None) -> str | None:
    """None where nothing is built."""
    if progress is None:
        return None
    left = "" if progress.left_s is None else f", {_duration(progress.left_s)} left"
    return f"{int(progress.share * 100)} %{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _gate_words(gate: Gate | None) -> str | None:
    if gate is None:
        return None
    return "holds" if gate.holds else "does not hold"


def _gate_rows(gate: Gate) -> Iterable[tuple[object, ...]]:
    for figure in gate.figures:
        holds = "yes" if figure.holds else "no"
        yield printable(figure.name, 60), figure.figure, figure.bound, holds, printable(figure.note, 200)


def _time(moment: datetime) -> str:
    return to_rfc3339(to_micros(moment.replace(microsecond=0)))
