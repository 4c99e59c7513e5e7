"""`nearline generations gate`: measures whether a generation may answer, and writes what it finds into the log."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearline.commands._generation_acts import act_options, operator
from nearline.commands._options import InstanceReader, OutputFile, instance_options
from nearline.commands._terminal import on_terminal, print_table
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from nearline.ask.connections import Connections
    from schemas.generations import Gate, GenerationRecord, Record
    from schemas.ids import Generation
    from streams.generations.acts import By
    from streams.generations.state import Generations
    from streams.settings import KafkaSettings
    from trainer.data.feed import Feed


@click.command()
@click.argument("generation", metavar="G")
@click.option("--events", multiple=True, type=click.Path(exists=True, allow_dash=True),
              help="Recorded events instead of those in the topics: JSON lines, .gz, or a "
              "folder of nearline export; may be given several times.")  # fmt: skip
@click.option("--json", "json_file", type=OutputFile(), help="All figures, here.")
@act_options
@instance_options
def gate(
    *,
    generation: str,
    events: tuple[str, ...],
    json_file: Path | None,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Measure whether G may answer, beside the generation that serves. The exit status is 1 if a check fails.

    \b
    Example:
      nearline generations gate my-package-0123abcd
      nearline generations gate my-package-0123abcd --events newest.jsonl.gz --json gate.json
    """
    from nearline.ask.connections import Connections
    from nearline.gate.gate import measure
    from schemas.ids import Generation
    from streams.generations import acts
    from streams.generations.log import read_generations

    who, connections = operator(by, reason), Connections(settings, instance)
    state = read_generations(connections.kafka)
    record = acts.known(state, Generation(generation))
    found = measure(connections, state, record, lambda: _feed(connections, events), _show_begin)
    print_gate(found)
    record_gate(connections.kafka, record, found, who)
    if json_file is not None:
        _write(json_file, record.id, found)
    if not found.holds:
        click.get_current_context().exit(1)


def _feed(connections: "Connections", events: tuple[str, ...]) -> "Feed":
    if events:
        from nearline.commands._recorded_events import read_feed

        return read_feed(events, connections.settings.rules)
    from nearline.gate.recorded import recorded_feed

    return recorded_feed(connections.kafka, connections.settings.rules)


def record_gate(kafka: "KafkaSettings", record: "GenerationRecord", found: "Gate", who: "By") -> None:
    """Raises ActRefused if the generation was retired meanwhile, or retired and built again."""
    from streams.errors import ActRefused
    from streams.generations import acts
    from streams.generations.log import change_generations

    def decide(state: "Generations") -> "Sequence[Record]":
        if acts.known(state, record.id).life != record.life:
            raise ActRefused(f"the generation {record.id} was built again while it was measured; run the gate again")
        return acts.record_gate(state, record.id, found, who)

    change_generations(kafka, decide)


def _show_begin(name: str) -> None:
    if on_terminal():
        click.echo(f"\r\x1b[Kmeasuring: {name}", nl=False, err=True)


def print_gate(found: "Gate") -> None:
    """All figures, for people."""
    from schemas.printable import printable

    if on_terminal():
        click.echo("\r\x1b[K", nl=False, err=True)
    rows = [
        (figure.name, figure.figure, figure.bound, "yes" if figure.holds else "no", printable(figure.note, 500))
        for figure in found.figures
    ]
    print_table(("check", "figure", "bound", "holds", "note"), rows)


def _write(file: Path, generation: "Generation", found: "Gate") -> None:
    import msgspec

    fields = {"generation": generation, "at": found.at, "holds": found.holds, "figures": found.figures}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n")
