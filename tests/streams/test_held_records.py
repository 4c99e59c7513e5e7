"""Records that are read but not yet processed, while partitions move or an outage lasts."""

from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from streams.index.backoff import RetryBackoff
from streams.index.loop import IndexLoop
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import IndexSettings, KafkaSettings
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.topics import new_generation

KAFKA = KafkaSettings(bootstrap_servers="localhost:1")
PLACES = [TopicPartition("posts", 0, 7)]


class StubMessage:
    def __init__(self, topic: str, partition: int) -> None:
        self.place = topic, partition

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def error(self) -> None:
        return None


class StubConsumer:
    """Returns one record at every poll. Its position is offset 7, behind that record."""

    def __init__(self) -> None:
        self.stored: list[Any] = []

    def assignment(self) -> list[TopicPartition]:
        return PLACES

    def position(self, _: list[TopicPartition]) -> list[TopicPartition]:
        return PLACES

    def store_offsets(self, offsets: list[TopicPartition]) -> None:
        self.stored += offsets

    def pause(self, _: list[TopicPartition]) -> None: ...

    def resume(self, _: list[TopicPartition]) -> None: ...

    def poll(self, _: float) -> StubMessage:
        return StubMessage("posts", 0)


class StubProcessor:
    def on_revoked(self, places: list[Any]) -> None: ...


def test_a_record_that_is_polled_during_an_outage_is_carried_over() -> None:
    carried_over: list[Message] = []
    with RetryBackoff(cast(Consumer, StubConsumer()), Event(), carried_over, poll_after_s=0.0) as backoff:
        assert backoff.wait()
    assert [cast(StubMessage, message).place for message in carried_over] == [("posts", 0)]


def test_offsets_wait_for_a_record_that_is_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the consumer's position is already behind that record."""
    consumer = StubConsumer()
    tier = cast(Any, JournalTier(tmp_path / "journal"))
    loop = IndexLoop(KAFKA, IndexSettings(), tier, new_generation(), 3600)
    loop._carried_over = [cast(Message, StubMessage("posts", 0))]

    def write_while_another_arrives(*_: Any) -> list[Any]:
        if not consumer.stored:
            loop._carried_over = [cast(Message, StubMessage("posts", 0))]
        return []

    monkeypatch.setattr(loop, "_write_until_durable", write_while_another_arrives)
    loop._step(cast(Consumer, consumer), cast(Any, None), Event())
    assert consumer.stored == []
    monkeypatch.setattr(loop, "_write_until_durable", lambda *_: [])
    loop._step(cast(Consumer, consumer), cast(Any, None), Event())
    assert consumer.stored == PLACES


def test_records_of_a_lost_partition_are_left_to_its_new_owner() -> None:
    loop = TransactionalLoop(
        KAFKA,
        cast(Any, StubProcessor()),
        group="group",
        topics=["posts"],
        transactional_id="id",
        batch_records=lambda: 10,
        interval_s=0.0,
    )
    loop._batch = [cast(Message, StubMessage("posts", partition)) for partition in (0, 1)]
    loop._on_revoke(cast(Consumer, None), PLACES)
    assert [cast(StubMessage, record).place for record in loop._batch] == [("posts", 1)]
