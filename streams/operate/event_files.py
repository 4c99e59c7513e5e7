"""Reads files of events, one JSON object a line: checks each line, and can shift the times of the events.

Owns what a line is, why it is bad, and how its times are shifted. Knows neither Kafka nor the terminal.
A file is read twice: `survey` checks all of it, then `events` gives the records to send. So it is never held in memory.
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

from schemas.canaries import RESERVED
from schemas.errors import BadRecord
from schemas.events import Event, event_key, event_time_us, event_topic, is_canary, parse_event, unknown_fields
from schemas.ids import Micros
from schemas.times import to_micros, to_rfc3339
from streams.errors import BadFile

MAX_LINE_BYTES: Final = 900_000
"""By default a broker takes records of up to 1 MB. The difference is room for the key and the headers."""

_SPOOL_BYTES: Final = 64 * 1024 * 1024
"""The content of a pipe is kept in memory up to this size, then on disk."""

MOST_UNKNOWN: Final = 100
"""So many unknown fields are remembered."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_TIMES: Final = ("at", "created_at")


class InputEvent(NamedTuple):
    """One record as it will be produced."""

    topic: str
    key: bytes
    value: bytes


class Survey(NamedTuple):
    """What reading a whole file has shown. `digest` is the SHA-256 of its lines, so that a file and its `.gz` have the
    same. `unknown` names the fields that the schema does not have, each with its type of event: at most
    MOST_UNKNOWN."""

    num_events: int
    num_bad: int
    oldest_us: Micros | None
    newest_us: Micros | None
    digest: str
    unknown: tuple[str, ...]


class EventFile:
    """An open file of events, plain or gzipped, that can be read from the start again and again.

    Its length is fixed when it has been read to its end for the first time; what is appended later is not read.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self._stream = stream
        self._num_bytes: int | None = None
        """After decompression; None until the file was read to its end."""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Line numbers, from 1, with the bytes of the line; blank lines are left out. A line longer than MAX_LINE_BYTES
        is cut to MAX_LINE_BYTES + 1. Raises BadFile if the file cannot be read to its end."""
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
    """Reads lines from the first `num_bytes` bytes of a stream, and counts the bytes."""

    def __init__(self, stream: BinaryIO, num_bytes: int) -> None:
        self._stream = stream
        self._num_left = num_bytes
        self.num_read = 0

    def readline(self, max_bytes: int) -> bytes:
        line = self._stream.readline(min(max_bytes, self._num_left))
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
    """`argument` is a path, or `-` for standard input. A source that cannot be read twice, such as a pipe, is copied
    first. Raises BadFile."""
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


def survey(file: EventFile, latest_us: Micros | None, report: Callable[[int, BadRecord], None]) -> Survey:
    """Checks every line, and calls `report` with the number of each bad line and the reason. An event later than
    `latest_us` is bad; None allows every time. Raises BadFile."""
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
            report(number, error)
            continue
        num_events += 1
        if len(unknown) < MOST_UNKNOWN:
            unknown.update(dict.fromkeys(_unknown_fields(event, line)))
        times_us = [to_micros(getattr(event, name)) for name in _time_fields(event)]
        oldest = min(times_us if oldest is None else [oldest, *times_us])
        newest = max(times_us if newest is None else [newest, *times_us])
    return Survey(num_events, num_bad, oldest, newest, digest.hexdigest(), tuple(unknown)[:MOST_UNKNOWN])


def events(file: EventFile, latest_us: Micros | None, shift_us: int = 0) -> Iterator[InputEvent]:
    """The events of the good lines, in order. The value is the bytes of the line, unless the times are shifted. Raises
    BadFile."""
    for _, line in file.lines():
        try:
            event = _read(line, latest_us)
        except BadRecord:
            continue
        value = shift_times(event, shift_us) if shift_us else line
        yield InputEvent(event_topic(event), event_key(event).encode(), value)


def shift_times(event: Event, shift_us: int) -> bytes:
    """The body of the event with all its times moved by `shift_us`. The same event and shift give the same bytes.
    Unknown fields are left out: no stage reads them, and some values that can be read cannot be written again."""
    times = {name: to_rfc3339(Micros(to_micros(getattr(event, name)) + shift_us)) for name in _time_fields(event)}
    return msgspec.json.encode({**msgspec.to_builtins(event), **times})


def _time_fields(event: Event) -> list[str]:
    return [name for name in _TIMES if name in event.__struct_fields__]


def _unknown_fields(event: Event, line: bytes) -> list[str]:
    return [f"{name} of {event.__struct_config__.tag}" for name in unknown_fields(event, line)]


def _read(line: bytes, latest_us: Micros | None) -> Event:
    """Raises BadRecord."""
    if len(line) > MAX_LINE_BYTES:
        raise BadRecord(f"the line is longer than {MAX_LINE_BYTES} bytes; shorten the text")
    event = parse_event(line)
    if is_canary(event):
        raise BadRecord(f"post_id {RESERVED}")
    if latest_us is not None and event_time_us(event) > latest_us:
        raise BadRecord("at or created_at is more than 24 h past now; send the real time or use --shift-to-now")
    return event
