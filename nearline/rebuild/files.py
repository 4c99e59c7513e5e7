"""Events from exported files: what they and the topics lack together, and how they get into the topics of a version.

Each record gets into the partition that it came from, with its timestamp, and a header with its offset there: so a
loading that was killed goes on behind the last record that was committed. All loaders use one transactional id, so that
of two that work at the same time one is fenced, and no event gets in twice.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from schemas.headers import headers_of
from schemas.ids import ContextVersion, Offset
from schemas.topics import context_names, recorded_inputs
from streams.errors import BadFile, TooLittleLeft
from streams.kafka.clients import admin
from streams.kafka.command_transactions import CommandTransactions, in_batches
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Output, Place
from streams.operate.export import ExportedRecord, Stretch, records_of, stretches
from streams.settings import KafkaSettings

OFFSET_HEADER: Final = "recorded-offset"
"""Of a loaded record: its offset in the input that it was exported from, as ASCII decimal."""
_TRANSACTIONAL_ID: Final = "nearline-rebuild"
_TRANSACTION_MS: Final = 60_000
_CALL_S: Final = 30.0
_BATCH_RECORDS: Final = 5_000
_BATCH_BYTES: Final = 16 * 1024 * 1024
_TO_THE_END_S: Final = 90.0
"""A loader that died within a transaction holds back the end until that has expired, or the next one begins."""
_FIRST_STRETCH: Final = 1_000
_GROWTH: Final = 4


class Gap(NamedTuple):
    """Events in [first, next) are in no file, and not in the topic any more."""

    place: Place
    first: Offset
    next: Offset

    def __str__(self) -> str:
        return f"{self.place.topic}-{self.place.partition} from {self.first} to {self.next - 1}"


class Coverage(NamedTuple):
    """`reaches`: the offset of each input partition at which the files end, and the topic goes on."""

    reaches: Offsets
    gaps: list[Gap]


def coverage(folder: Path, starts: Mapping[Place, Offset], ends: Mapping[Place, Offset]) -> Coverage:
    """`starts` and `ends`: of all input partitions, now. Raises BadFile if the folder holds no export of them."""
    _refuse_empty(folder)
    by_place: dict[Place, list[Stretch]] = {}
    for stretch in stretches(folder):
        by_place.setdefault(stretch.place, []).append(stretch)
    if strange := sorted(set(by_place) - set(starts)):
        raise BadFile(
            f"{folder} holds events of {strange[0].topic}-{strange[0].partition}, which is not on this broker; take "
            "files that were exported here"
        )
    reaches: Offsets = {}
    gaps: list[Gap] = []
    for place, start in starts.items():
        next_offset = Offset(0)
        for stretch in by_place.get(place, []):
            if stretch.first > next_offset:
                gaps.append(Gap(place, next_offset, stretch.first))
            next_offset = max(next_offset, stretch.next)
        if next_offset > ends[place]:
            raise BadFile(
                f"{folder} holds events of {place.topic}-{place.partition} up to {next_offset}, and the topic ends at "
                f"{ends[place]}; take files that were exported from this broker"
            )
        if start > next_offset:
            gaps.append(Gap(place, next_offset, start))
        reaches[place] = max(start, next_offset)
    return Coverage(reaches, gaps)


def _refuse_empty(folder: Path) -> None:
    if not stretches(folder):
        command = f"nearline export --out {shlex.quote(str(folder))}"
        raise BadFile(f"{folder} holds no exported events; the command that fills a folder is: {command}")


def refuse_gaps(folder: Path, gaps: Sequence[Gap]) -> None:
    """Raises TooLittleLeft."""
    if gaps:
        named = ", ".join(map(str, gaps[:3])) + (" and more" if len(gaps) > 3 else "")
        raise TooLittleLeft(
            f"the files in {folder} and the topics together lack events ({named}), so contexts made of them would be "
            "short of these; name a folder that holds them too, or give --force --reason TEXT"
        )


def load(kafka: KafkaSettings, version: ContextVersion, folder: Path, until: Offsets) -> int:
    """Writes what is not loaded yet, and returns how many records that were. `until`: where the topics go on; what was
    exported since is left to them. Raises BadFile; Fenced if another loader came meanwhile; StreamsError. What was
    committed before an error stays."""
    num_loaded = 0
    _refuse_empty(folder)
    with kafka_errors():
        # 1. Take the id. This ends the transaction that another loader left open, and fences that loader.
        transactions = _transactions(kafka)
        # 2. Look how far the loading is. Nothing can be added any more by others.
        loaded = _loaded(kafka, version)
        # 3. Add the rest, some thousand records at a time.
        for stretch in stretches(folder):
            first, end = loaded.get(stretch.place, Offset(0)), until.get(stretch.place, Offset(0))
            if stretch.next <= first or stretch.first >= end:
                continue
            for batch in _batches(record for record in records_of(folder, stretch) if first <= record.offset < end):
                transactions.commit(_output(record, stretch.place, version) for record in batch)
                num_loaded += len(batch)
                loaded[stretch.place] = Offset(batch[-1].offset + 1)
    return num_loaded


def clear(kafka: KafkaSettings, version: ContextVersion) -> None:
    """Deletes the loaded events that the version has applied. Raises StreamsError."""
    with closing(OffsetReader(kafka, _CALL_S)) as reader:
        places = reader.places(recorded_inputs(version).values())
        committed = reader.committed(context_names(version).group, places)
    client = admin(kafka)  # kept in a variable, because its answers come only while it exists
    with kafka_errors():
        # Not up to the ends: what the group has not committed would count as deleted before it was read.
        requests = [TopicPartition(*place, offset) for place, offset in committed.items() if offset]
        for deleted in client.delete_records(requests, request_timeout=_CALL_S).values() if requests else ():
            deleted.result()


def _loaded(kafka: KafkaSettings, version: ContextVersion) -> Offsets:
    """The offset behind the last loaded record of each input partition."""
    input_of = {recorded: name for name, recorded in recorded_inputs(version).items()}
    loaded: Offsets = {}
    with closing(OffsetReader(kafka, _CALL_S)) as reader, closing(scanner(kafka)) as consumer:
        starts, ends = reader.bounds(input_of)
        for place, end in ends.items():
            last = _last_loaded(consumer, place, starts[place], end)
            if last is not None:
                loaded[Place(input_of[place.topic], place.partition)] = Offset(last + 1)
    return loaded


def _last_loaded(consumer: Consumer, place: Place, start: Offset, end: Offset) -> int | None:
    """The offset in the input of the last record. Behind it may be thousands that a killed loader never committed, so
    this reads backwards, in stretches that grow."""
    length = _FIRST_STRETCH
    while True:
        first = max(start, Offset(end - length))
        last: int | None = None
        for record in scan(consumer, place, first, end, to_the_end_s=_TO_THE_END_S):
            last = int(dict(headers_of(record)).get(OFFSET_HEADER) or -1)
        if last is not None or first == start:
            return last
        length *= _GROWTH


def _output(record: ExportedRecord, place: Place, version: ContextVersion) -> Output:
    headers = [(OFFSET_HEADER, b"%d" % record.offset)]
    topic = recorded_inputs(version)[place.topic]
    return Output(topic, record.key, record.value, headers, place.partition, record.timestamp_ms)


def _batches(records: Iterable[ExportedRecord]) -> Iterator[list[ExportedRecord]]:
    return in_batches(
        records,
        lambda record: len(record.key or b"") + len(record.value or b""),
        max_records=_BATCH_RECORDS,
        max_bytes=_BATCH_BYTES,
    )


def _transactions(kafka: KafkaSettings) -> CommandTransactions:
    return CommandTransactions(
        kafka,
        _TRANSACTIONAL_ID,
        _TRANSACTION_MS,
        fenced_by="another operator loads events at the same time",
        mend="run the command again: it goes on",
    )
