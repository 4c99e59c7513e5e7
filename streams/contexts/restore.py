"""Brings row stores up to date from their changelogs.

Reads up to the high watermark, not only to the last stable offset. Another worker's transaction may be committed while
the changelog still lacks its commit marker; to stop before the marker would lose that worker's last rows.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicCollection, TopicPartition

from schemas.ids import Offset
from streams.contexts.row_store import RowStore
from streams.errors import KafkaUnavailable
from streams.kafka.clients import admin, new_consumer
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place, offset_of, place_of
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_STUCK_AFTER_S: Final = 60.0
"""The longest time without any progress. The open transaction of a dead worker takes some 16 s to end."""
_BATCH_RECORDS: Final = 5_000

log = structlog.get_logger(__name__)


def topic_ids(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, bytes]:
    """The ids of these topics. A topic that is deleted and created again has another id."""
    client = admin(kafka)
    with kafka_errors():
        described = client.describe_topics(TopicCollection(list(names)), request_timeout=_CALL_S)
        return {name: str(future.result().topic_id).encode() for name, future in described.items()}


def restore(kafka: KafkaSettings, stores: Sequence[RowStore], beat: Beat = no_beat) -> int:
    """Returns the number of cells read. May take minutes and calls `beat` meanwhile. Raises KafkaUnavailable if there
    is no progress for a minute."""
    started_at = time.monotonic()
    ends = _prepare(kafka, stores)
    behind = {store.place: store for store in stores if store.position < ends[store.place]}
    if not behind:
        return 0
    with kafka_errors(), closing(_reader(kafka)) as reader:
        reader.assign([TopicPartition(*place, store.position) for place, store in behind.items()])
        num_cells = _read(reader, behind, ends, beat)
    seconds = round(time.monotonic() - started_at, 2)
    log.info("restored", num_tables=len(stores), num_cells=num_cells, seconds=seconds)
    return num_cells


def _reader(kafka: KafkaSettings) -> Consumer:
    return new_consumer(kafka, "restore", **{"enable.partition.eof": True, "fetch.wait.max.ms": 20})


def _prepare(kafka: KafkaSettings, stores: Sequence[RowStore]) -> dict[Place, Offset]:
    """Empties the stores whose rows cannot be brought up to date, and moves every position to a record that is there.
    Returns the ends of the changelogs."""
    with closing(OffsetReader(kafka, _CALL_S)) as reader:
        places = [store.place for store in stores]
        starts, ends = reader.starts(places), reader.ends(places)
    for store in stores:
        end = ends[store.place]
        # Past the end: the broker has lost its newest records, so what these rows say never happened. Stale: another
        # worker has deleted cells, and compaction may have removed their tombstones from the changelog.
        if store.position > end or (store.position < end and store.is_stale(kafka.erase_within_s)):
            store.reopen_empty()
        store.position = max(store.position, starts[store.place])
    return {place: ends[place] for place in places}


def _read(reader: Consumer, behind: dict[Place, RowStore], ends: dict[Place, Offset], beat: Beat) -> int:
    """Takes every store out of `behind` as soon as it has reached its end."""
    num_cells = 0
    deadline = time.monotonic() + _STUCK_AFTER_S
    while behind:
        beat()
        messages = reader.consume(_BATCH_RECORDS, 0.05)
        if messages:
            deadline = time.monotonic() + _STUCK_AFTER_S
        elif time.monotonic() > deadline:
            places = ", ".join(f"{place.topic}-{place.partition}" for place in behind)
            raise KafkaUnavailable(f"restoring {places} does not get on; is a transaction open that nobody ends?")
        num_cells += _write_cells(messages, behind)
        for place in [place for place, store in behind.items() if store.position >= ends[place]]:
            del behind[place]
    return num_cells


def _write_cells(messages: Sequence[Message], behind: dict[Place, RowStore]) -> int:
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
            # The control records before the end have offsets too.
            positions[place] = max(positions.get(place, 0), offset_of(message))
        else:
            raise translate(error)
    for place, position in positions.items():
        if place in behind:
            behind[place].write(cells.get(place, {}), Offset(position))
    return num_cells
