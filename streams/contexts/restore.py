"""Brings table partitions up to date from their changelogs.

Up to the high watermark, not the last stable offset: what another worker has committed may not carry its marker in the
changelog yet, and stopping before it would lose that worker's last rows.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicCollection, TopicPartition

from schemas.ids import Offset
from streams.contexts.rows import TablePartition
from streams.errors import KafkaUnavailable
from streams.kafka.clients import admin, consumer_config, kafka_errors, translate
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place, offset_of, place_of
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_PATIENCE_S: Final = 60.0
"""Without any progress; an open transaction of a dead worker holds it up for some 16 s."""
_BATCH: Final = 5_000

log = structlog.get_logger(__name__)


def topic_ids(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, bytes]:
    """A topic that is deleted and made again has another id."""
    client = admin(kafka)
    with kafka_errors():
        described = client.describe_topics(TopicCollection(list(names)), request_timeout=_CALL_S)
        return {name: str(future.result().topic_id).encode() for name, future in described.items()}


def restore(kafka: KafkaSettings, tables: Sequence[TablePartition], beat: Beat = no_beat) -> int:
    """Returns the number of cells read. Raises KafkaUnavailable when it does not get on. `beat` is called meanwhile:
    it may take minutes."""
    started = time.monotonic()
    ends = _ends(kafka, tables)
    behind = {table.place: table for table in tables if table.position < ends[table.place]}
    if not behind:
        return 0
    with kafka_errors(), closing(_reader(kafka)) as reader:
        reader.assign([TopicPartition(*place, table.position) for place, table in behind.items()])
        num_cells = _read(reader, behind, ends, beat)
    log.info("restored", num_tables=len(tables), num_cells=num_cells, seconds=round(time.monotonic() - started, 2))
    return num_cells


def _reader(kafka: KafkaSettings) -> Consumer:
    return Consumer(consumer_config(kafka, "restore", **{"enable.partition.eof": True, "fetch.wait.max.ms": 20}))


def _ends(kafka: KafkaSettings, tables: Sequence[TablePartition]) -> dict[Place, Offset]:
    reader = OffsetReader(kafka, _CALL_S)
    places = [table.place for table in tables]
    starts, ends = reader.starts(places), reader.ends(places)
    for table in tables:
        end = ends[table.place]
        # A broker that lost its newest records: what stands here never happened. Or another worker has deleted cells,
        # and the changelog does not say so any more.
        if table.position > end or (table.position < end and table.is_stale(kafka.erase_within_s)):
            table.wipe()
        table.position = max(table.position, starts[table.place])
    return {place: ends[place] for place in places}


def _read(reader: Consumer, behind: dict[Place, TablePartition], ends: dict[Place, Offset], beat: Beat) -> int:
    num_cells = 0
    deadline = time.monotonic() + _PATIENCE_S
    while behind:
        beat()
        messages = reader.consume(_BATCH, 0.05)
        if messages:
            deadline = time.monotonic() + _PATIENCE_S
        elif time.monotonic() > deadline:
            places = ", ".join(f"{table.place.topic}-{table.partition}" for table in behind.values())
            raise KafkaUnavailable(f"restoring {places} does not get on; is a transaction open that nobody ends?")
        num_cells += _take_in(messages, behind)
        for place in [place for place, table in behind.items() if table.position >= ends[place]]:
            del behind[place]
    return num_cells


def _take_in(messages: Sequence[Message], behind: dict[Place, TablePartition]) -> int:
    cells: dict[Place, dict[bytes, bytes | None]] = {}
    positions: dict[Place, int] = {}
    num_cells = 0
    for message in messages:
        place, error = place_of(message), message.error()
        if error is None:
            cells.setdefault(place, {})[message.key() or b""] = message.value()
            positions[place] = offset_of(message) + 1
            num_cells += 1
        elif error.code() == KafkaError._PARTITION_EOF:
            # Control records before the end have taken offsets too.
            positions[place] = max(positions.get(place, 0), offset_of(message))
        else:
            raise translate(error)
    for place, position in positions.items():
        if place in behind:
            behind[place].write(cells.get(place, {}), Offset(position))
    return num_cells
