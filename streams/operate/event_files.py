"""Files of events, one JSON object a line: read, checked line by line, and moved in time.

Owns what a line is, why it is bad, and the shift of its times. Knows neither Kafka nor the terminal.
A file is read twice: `survey` looks at all of it, `events` gives what may be sent. So it is never held in memory.
"""

import gzip
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

import msgspec

from schemas.errors import BadRecord
from schemas.events import Event, event_key, event_time_us, event_topic, parse_event, unknown_fields
from schemas.ids import Micros
from schemas.times import to_micros, to_rfc3339
from streams.errors import BadFile

MAX_LINE_BYTES: Final = 900_000
"""A broker takes a record of 1 MB unless it is told otherwise; the rest is room for key and headers."""

_SPOOL_BYTES: Final = 64 * 1024 * 1024
"""A pipe is spooled in memory up to this, then on disk."""

MOST_UNKNOWN: Final = 100

_GZIP_MAGIC: Final = b"\x1f\x8b"
_TIMES: Final = ("at", "created_at")


class InputEvent(NamedTuple):
    """One record as it will be produced."""

    topic: str
    key: bytes
    value: bytes


class Survey(NamedTuple):
    """What a whole look at a file found. `digest` is the SHA-256 of its lines, so that a `.gz` is the same file.
    `unknown` are the fields, each with its type of event, that the schema does not have: at most MOST_UNKNOWN."""

    num_events: int
    num_bad: int
    oldest_us: Micros | None
    newest_us: Micros | None
    digest: str
    unknown: tuple[str, ...]


class EventFile:
    """An open file of events, plain or gzipped, that can be read from the start again and again.

    What is appended to it after it was read to its end for the first time is not there.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self._stream = stream
        self._num_bytes: int | None = None
        """Unpacked."""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Line numbers from 1 with their bytes, blank lines left out. Raises BadFile when it cannot be read.

        A line longer than MAX_LINE_BYTES comes cut to one byte more.
        """
        self._stream.seek(0)
        is_gzip = self._stream.read(2) == _GZIP_MAGIC
        self._stream.seek(0)
        stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=self._stream))) if is_gzip else self._stream
        bounded = _Bounded(stream, sys.maxsize if self._num_bytes is None else self._num_bytes)
        try:
            yield from _lines(bounded)
        except (OSError, EOFError, zlib.error) as error:
            raise BadFile(f"{self.name} cannot be read to its end: {error}") from error
        self._num_bytes = bounded.num_read


class _Bounded:
    """The first bytes of a stream."""

    def __init__(self, stream: BinaryIO, num_bytes: int) -> None:
        self._stream = stream
        self._num_left = num_bytes
        self.num_read = 0

    def readline(self, most: int) -> bytes:
        line = self._stream.readline(min(most, self._num_left))
        self._num_left -= len(line)
        self.num_read += len(line)
        return line


def _lines(stream: _Bounded) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        if stripped := line.strip():
            yield number, stripped


@contextmanager
def open_events(argument: str) -> Iterator[EventFile]:
    """`argument` is a path, or `-` for standard input. What cannot be read twice is spooled first. Raises BadFile."""
    name = "stdin" if argument == "-" else argument
    try:
        source = sys.stdin.buffer if argument == "-" else Path(argument).open("rb")  # noqa: SIM115
    except OSError as error:
        raise BadFile(f"{name} cannot be opened: {error.strerror}") from error
    with source:
        if source.seekable():
            yield EventFile(name, cast(BinaryIO, source))
            return
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            while chunk := source.read(1 << 20):
                spool.write(chunk)
            yield EventFile(name, cast(BinaryIO, spool))


def survey(file: EventFile, latest_us: Micros | None, report: Callable[[int, str], None]) -> Survey:
    """Looks at every line and calls `report` with the number and the reason of each bad one.

    An event later than `latest_us` is bad; None lets every time pass. Raises BadFile.
    """
    digest = hashlib.sha256()
    num_events = num_bad = 0
    oldest: Micros | None = None
    newest: Micros | None = None
    unknown: dict[str, None] = {}  # in the order in which they were seen
    for number, line in file.lines():
        digest.update(line)
        digest.update(b"\n")
        try:
            event = _read(line, latest_us)
        except BadRecord as error:
            num_bad += 1
            report(number, str(error))
            continue
        num_events += 1
        if len(unknown) < MOST_UNKNOWN:
            unknown.update(dict.fromkeys(_unknown(event, line)))
        times_us = [to_micros(getattr(event, name)) for name in _times(event)]
        oldest = min(times_us if oldest is None else [oldest, *times_us])
        newest = max(times_us if newest is None else [newest, *times_us])
    return Survey(num_events, num_bad, oldest, newest, digest.hexdigest(), tuple(unknown)[:MOST_UNKNOWN])


def events(file: EventFile, latest_us: Micros | None, shift_us: int = 0) -> Iterator[InputEvent]:
    """The events of the good lines in order, each the line's own bytes unless its times are moved. Raises BadFile."""
    for _, line in file.lines():
        try:
            event = _read(line, latest_us)
        except BadRecord:
            continue
        value = shift_times(event, shift_us) if shift_us else line
        yield InputEvent(event_topic(event), event_key(event).encode(), value)


def shift_times(event: Event, shift_us: int) -> bytes:
    """The event's body with its times moved by `shift_us`, and without unknown fields: nobody reads those, and what is
    in them may be nothing that can be written again. The same event and shift give the same bytes."""
    moved = {name: to_rfc3339(Micros(to_micros(getattr(event, name)) + shift_us)) for name in _times(event)}
    return msgspec.json.encode({**msgspec.to_builtins(event), **moved})


def _times(event: Event) -> list[str]:
    return [name for name in _TIMES if name in event.__struct_fields__]


def _unknown(event: Event, line: bytes) -> list[str]:
    return [f"{name} of {event.__struct_config__.tag}" for name in unknown_fields(event, line)]


def _read(line: bytes, latest_us: Micros | None) -> Event:
    """Raises BadRecord."""
    if len(line) > MAX_LINE_BYTES:
        raise BadRecord(f"the line is longer than {MAX_LINE_BYTES} bytes; shorten the text")
    event = parse_event(line)
    if latest_us is not None and event_time_us(event) > latest_us:
        raise BadRecord("at or created_at is more than 24 h past now; send the real time or use --shift-to-now")
    return event
