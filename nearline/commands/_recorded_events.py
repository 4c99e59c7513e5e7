"""Reads recorded events for the trainer: from files of JSON lines, or from a folder that `nearline export` wrote."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.errors import BadRecording
from schemas.errors import BadRecord
from schemas.events import parse_event
from streams.operate.event_files import open_events

if TYPE_CHECKING:
    from contexts.settings import ContextRules
    from trainer.data.feed import Feed, TimedEvent


def read_feed(files: Sequence[str], rules: "ContextRules | None" = None) -> "Feed":
    """`rules`: those of an instance, if they say which actions are positive. Raises BadRecording for a line that is no
    event, BadFile for a file that cannot be read to its end."""
    from trainer.data.feed import Feed

    return Feed((event for name in files for event in _read_events(name)), rules)


def _read_events(name: str) -> "Iterator[TimedEvent]":
    from trainer.data.feed import timed_event

    if Path(name).is_dir():
        yield from _read_exported(Path(name))
        return
    with open_events(name) as file:
        for number, line in file.lines():
            try:
                event = parse_event(line)
            except BadRecord as error:
                raise BadRecording(f"{file.name}:{number}: {error}; mend the line or take it out") from error
            yield timed_event(event, line)


def _read_exported(folder: Path) -> "Iterator[TimedEvent]":
    """Leaves out records that are no events: in the pipeline they became dead letters."""
    from streams.operate.export import exported
    from trainer.data.feed import timed_event

    for body in exported(folder):
        with suppress(BadRecord):
            yield timed_event(parse_event(body), body)
