"""Rows of a partition that another worker has owned meanwhile."""

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.restore import restore
from streams.contexts.row_store import RowStore
from streams.kafka.clients import producer_config
from streams.kafka.records import Place
from streams.settings import KafkaSettings

PLACE = Place(topics.POST_CHANGELOG, Partition(0))
HOUR_S = 3600


@pytest.mark.broker
@pytest.mark.parametrize(("away_h", "kept"), [(23, b"text"), (25, None)])
def test_rows_that_were_away_for_too_long_are_restored_whole(
    kafka: KafkaSettings, tmp_path: Path, away_h: int, kept: bytes | None
) -> None:
    """Another worker has deleted a cell, and compaction has removed the tombstone from the changelog since."""
    producer = Producer(producer_config(kafka))
    for key in (b"first", b"second"):
        producer.produce(PLACE.topic, b"new", key, partition=PLACE.partition)
    assert producer.flush(20) == 0
    store = RowStore(tmp_path, PLACE, b"id")
    store.write({b"first": b"old", b"deleted": b"text"}, Offset(1))
    away_since = time.time() - away_h * HOUR_S
    for file in tmp_path.rglob("last-shed"):
        os.utime(file, (away_since, away_since))
    restore(kafka, [store])
    assert (store.get(b"deleted"), store.get(b"second")) == (kept, b"new")
    assert store.position == 2
    store.close()


@pytest.mark.broker
def test_rows_that_the_broker_has_lost_never_happened(kafka: KafkaSettings, tmp_path: Path) -> None:
    """The broker came back without the newest records of the changelog."""
    producer = Producer(producer_config(kafka))
    producer.produce(PLACE.topic, b"kept", b"key", partition=PLACE.partition)
    assert producer.flush(20) == 0
    store = RowStore(tmp_path, PLACE, b"id")
    store.write({b"key": b"lost", b"other": b"lost"}, Offset(100))
    restore(kafka, [store])
    assert (store.get(b"key"), store.get(b"other"), store.position) == (b"kept", None, 1)
    store.close()
