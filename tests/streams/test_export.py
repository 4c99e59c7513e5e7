"""Input topics into files: everything once, in stretches, and only what is new the next time."""

import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.ids import Millis
from streams import export as export_module
from streams.errors import BadFile
from streams.export import export, exported, stretches
from streams.kafka import producer_config
from streams.settings import KafkaSettings
from tests.conftest import RunningBroker
from tests.streams.offsets import made

HOUR_MS = 3_600_000
BEGAN_MS = int(time.time() * 1000) - 100 * HOUR_MS


def send(kafka: KafkaSettings, topic: str, numbers: range) -> None:
    """One an hour."""
    producer = Producer(producer_config(kafka))
    for number in numbers:
        producer.produce(topic, b"%d" % number, b"k%d" % number, timestamp=BEGAN_MS + number * HOUR_MS)
    assert producer.flush(20) == 0


def values(folder: Path) -> list[int]:
    return sorted(int(value) for value in exported(folder))


@pytest.mark.broker
def test_a_later_export_adds_what_has_come_since(
    clean_topics: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_RECORDS", 7)
    kafka = made(clean_topics)
    send(kafka, topics.POSTS, range(40))
    send(kafka, topics.ACTIVITY, range(40, 50))
    assert sum(export(kafka, tmp_path, Millis(0))) == 50
    assert values(tmp_path) == list(range(50))
    assert sum(export(kafka, tmp_path, Millis(0))) == 0
    send(kafka, topics.POSTS, range(50, 60))
    last = stretches(tmp_path)[-1]
    (tmp_path / last.file_name).unlink()  # as if it had been killed before this one
    export_all = sum(export(kafka, tmp_path, Millis(0)))
    assert values(tmp_path) == list(range(60))
    assert export_all > 10
    assert not list(tmp_path.glob(".*"))


@pytest.mark.broker
def test_what_was_sent_before_is_left_out(clean_topics: RunningBroker, tmp_path: Path) -> None:
    kafka = made(clean_topics)
    send(kafka, topics.POSTS, range(40))
    assert sum(export(kafka, tmp_path, Millis(BEGAN_MS + 30 * HOUR_MS))) == 10
    assert values(tmp_path) == list(range(30, 40))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no exported events"):
        list(exported(tmp_path))
    (tmp_path / "posts-0-0-5.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadFile, match=r"posts-0-0-5\.parquet cannot be read"):
        list(exported(tmp_path))
