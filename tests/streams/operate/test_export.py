"""The export writes every record once, in stretches, and the next time only the new ones."""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.canaries import canary_id
from schemas.ids import Millis, Offset, Partition
from streams.errors import BadFile
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.operate import export as export_module
from streams.operate.export import export, exported, stretches
from streams.settings import KafkaSettings
from tests.kit.kafka.topics import produce, transaction
from tests.kit.waiting import until

HOUR_MS = 3_600_000
BEGAN_MS = int(time.time() * 1000) - 100 * HOUR_MS


def send(kafka: KafkaSettings, topic: str, numbers: range) -> None:
    """Their timestamps are an hour apart."""
    producer = Producer(producer_config(kafka))
    for number in numbers:
        producer.produce(topic, b"%d" % number, b"k%d" % number, timestamp=BEGAN_MS + number * HOUR_MS)
    assert producer.flush(20) == 0


def values(folder: Path) -> list[int]:
    return sorted(int(value) for value in exported(folder))


@pytest.mark.broker
def test_a_later_export_adds_the_new_records(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_RECORDS", 7)
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
def test_canaries_are_not_exported(kafka: KafkaSettings, tmp_path: Path) -> None:
    send(kafka, topics.POSTS, range(2))
    producer = Producer(producer_config(kafka))
    producer.produce(topics.POSTS, b"3", canary_id("node", 0).encode())
    assert producer.flush(20) == 0
    assert sum(export(kafka, tmp_path, Millis(0))) == 2
    assert values(tmp_path) == [0, 1]
    assert sum(export(kafka, tmp_path, Millis(0))) == 0, "they are not looked at again"


@pytest.mark.broker
def test_records_behind_an_open_transaction_are_exported_later(kafka: KafkaSettings, tmp_path: Path) -> None:
    """The record of the transaction, and the committed ones after it, which cannot be read yet."""
    produce(kafka, topics.POSTS, 0, 1)
    transaction(kafka, topics.POSTS, 1, commit=False)
    producer = transaction(kafka, topics.POSTS, 0, commit=None)
    produce(kafka, topics.POSTS, 0, 2)
    assert sum(export(kafka, tmp_path, Millis(0))) == 1
    producer.commit_transaction(20)
    reader, place = OffsetReader(kafka), Place(topics.POSTS, Partition(0))
    until(lambda: reader.stable_ends([place]) == {place: 5}, "the end of the transaction to be in the partition")
    assert sum(export(kafka, tmp_path, Millis(0))) == 3
    covered = [(stretch.place.partition, stretch.first, stretch.next) for stretch in stretches(tmp_path)]
    assert covered == [(0, 0, 1), (0, 1, 5), (1, 0, 2)], "aborted records count as exported"


@pytest.mark.broker
def test_a_file_covers_no_more_than_was_read(
    kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new leader may for a moment have fewer records than the leader that was asked for the end."""
    produce(kafka, topics.POSTS, 0, 2)
    ends = OffsetReader.stable_ends

    def promises_more(reader: OffsetReader, places: Iterable[Place]) -> Offsets:
        return {place: Offset(end + 3) for place, end in ends(reader, places).items()}

    monkeypatch.setattr(OffsetReader, "stable_ends", promises_more)
    assert sum(export(kafka, tmp_path, Millis(0))) == 2
    assert [(stretch.first, stretch.next) for stretch in stretches(tmp_path)] == [(0, 2)]


@pytest.mark.broker
def test_records_before_the_given_time_are_left_out(kafka: KafkaSettings, tmp_path: Path) -> None:
    send(kafka, topics.POSTS, range(40))
    assert sum(export(kafka, tmp_path, Millis(BEGAN_MS + 30 * HOUR_MS))) == 10
    assert values(tmp_path) == list(range(30, 40))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no exported events"):
        list(exported(tmp_path))
    (tmp_path / "posts-0-0-5.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadFile, match=r"posts-0-0-5\.parquet cannot be read"):
        list(exported(tmp_path))
