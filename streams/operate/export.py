"""Exports the input topics into Parquet files, without canaries. Each file holds a stretch of one partition.

    <topic>-<partition>-<first offset>-<next offset>.parquet      offset, timestamp_ms, key, value

The names of the files say what is exported already: a later export goes on where the last file of a partition ends. A
file gets its name only when it is complete, so an export that is killed loses at most one file of each partition.
Knows nothing of what the events say.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Message, TopicPartition

from schemas import topics
from schemas.canaries import is_reserved
from schemas.ids import Millis, Offset, Partition
from streams.errors import BadFile
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_RECORDS: Final = 100_000
"""In one file, at most."""
_ASK_S: Final = 20.0
_SCHEMA: Final = pa.schema(
    [("offset", pa.int64()), ("timestamp_ms", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
)


class Stretch(NamedTuple):
    """What a file holds: the records of one partition in [first, next)."""

    place: Place
    first: Offset
    next: Offset

    @property
    def file_name(self) -> str:
        return f"{self.place.topic}-{self.place.partition}-{self.first}-{self.next}.parquet"


def export(kafka: KafkaSettings, folder: Path, since_ms: Millis) -> Iterator[int]:
    """Yields the number of records of each file that it writes. `since_ms` counts only for a partition of which the
    folder holds nothing yet: its records before that time are left out. Raises StreamsError."""
    folder.mkdir(parents=True, exist_ok=True)
    next_offsets = {stretch.place: stretch.next for stretch in stretches(folder)}
    with closing(OffsetReader(kafka)) as reader, closing(scanner(kafka)) as consumer:
        places = reader.places(list(topics.INPUTS))
        # Not the high watermarks: records behind an open transaction cannot be read yet, and must not count as read.
        starts, ends = reader.starts(places), reader.stable_ends(places)
        with kafka_errors():
            times = [TopicPartition(*place, since_ms) for place in places]
            answers = consumer.offsets_for_times(times, timeout=_ASK_S)
        for place, answer in zip(places, answers, strict=True):
            first = next_offsets.get(place, Offset(answer.offset if answer.offset >= 0 else ends[place]))
            yield from _export_partition(consumer, folder, place, max(first, starts[place]), ends[place])


def _export_partition(consumer: Consumer, folder: Path, place: Place, first: Offset, end: Offset) -> Iterator[int]:
    records = scan(consumer, place, first, end)
    while first < end:
        batch = list(islice(records, _RECORDS))
        is_last = len(batch) < _RECORDS
        next_offset = min(end, _position(consumer, place)) if is_last else Offset((batch[-1].offset() or 0) + 1)
        if next_offset > first:
            exported_records = [record for record in batch if not _is_canary(record)]
            _write(folder, Stretch(place, first, next_offset), exported_records)
            yield len(exported_records)
        if is_last:
            return
        first = next_offset


def _is_canary(record: Message) -> bool:
    return record.topic() == topics.POSTS and is_reserved((record.key() or b"").decode("utf-8", "replace"))


def _position(consumer: Consumer, place: Place) -> Offset:
    """The offset after everything that the scan has read, control records included. It is never past what the broker
    has sent."""
    with kafka_errors():
        (position,) = consumer.position([TopicPartition(*place)])
    return Offset(position.offset)


def stretches(folder: Path) -> list[Stretch]:
    """What the folder holds, by topic, partition and offset."""
    exported_stretches = []
    for file in folder.glob("*.parquet"):
        topic, *numbers = file.stem.rsplit("-", 3)
        if topic in topics.INPUTS and all(number.isdigit() for number in numbers):
            partition, first, next_offset = map(int, numbers)
            exported_stretches.append(Stretch(Place(topic, Partition(partition)), Offset(first), Offset(next_offset)))
    return sorted(exported_stretches)


def exported(folder: Path) -> Iterator[bytes]:
    """The values of all exported records. Raises BadFile."""
    exported_stretches = stretches(folder)
    if not exported_stretches:
        command = f"nearline export --out {shlex.quote(str(folder))}"
        raise BadFile(f"{folder} holds no exported events; make some with: {command}")
    for stretch in exported_stretches:
        values = _read(folder, stretch, ["value"])["value"]
        yield from (value.as_py() for value in values if value.is_valid)


class ExportedRecord(NamedTuple):
    offset: Offset
    timestamp_ms: Millis
    key: bytes | None
    value: bytes | None


def records_of(folder: Path, stretch: Stretch) -> Iterator[ExportedRecord]:
    """By offset, each with the timestamp that it had. Raises BadFile."""
    columns = _read(folder, stretch, _SCHEMA.names).to_pydict()
    for row in zip(*(columns[name] for name in _SCHEMA.names), strict=True):
        yield ExportedRecord(*row)


def _read(folder: Path, stretch: Stretch, columns: list[str]) -> pa.Table:
    file = folder / stretch.file_name
    try:
        return pq.read_table(file, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise BadFile(f"{file} cannot be read: {error}; remove it and export again") from error


def _write(folder: Path, stretch: Stretch, records: Sequence[Message]) -> None:
    rows: dict[str, list[Any]] = {
        "offset": [record.offset() for record in records],
        "timestamp_ms": [record.timestamp()[1] for record in records],
        "key": [record.key() for record in records],
        "value": [record.value() for record in records],
    }
    partial = folder / f".{stretch.file_name}.{os.getpid()}"
    try:
        pq.write_table(pa.table(rows, schema=_SCHEMA), partial)
        partial.rename(folder / stretch.file_name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
