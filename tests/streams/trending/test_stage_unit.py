"""The trending stage where no broker is needed: what changes while it writes, and an answer that is an error."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError
from prometheus_client import CollectorRegistry

from schemas.ids import Micros, Partition, PostId
from schemas.trending import decode_trending
from streams.errors import KafkaRefused
from streams.kafka.heartbeat import NO_HEARTBEAT, HeartbeatFile
from streams.settings import KafkaSettings, TrendingSettings
from streams.trending.lists import _last_list
from streams.trending.metrics import TrendingMetrics
from streams.trending.scores import TrendingScores
from streams.trending.stage import TrendingStage
from tests.kit.data import events

SETTINGS = TrendingSettings()


def scores(partition: int) -> TrendingScores:
    counted = TrendingScores(Partition(partition), SETTINGS)
    counted.add(PostId("p"), "like", Micros(1))
    return counted


def new_stage(folder: Path, registry: CollectorRegistry) -> TrendingStage:
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    return TrendingStage(kafka, SETTINGS, folder, NO_HEARTBEAT, metrics=TrendingMetrics(registry))


def test_a_partition_that_comes_while_lists_are_written_ends_nothing(tmp_path: Path) -> None:
    """Sending waits, and the agent goes on meanwhile: it takes partitions over."""
    registry = CollectorRegistry()
    stage = new_stage(tmp_path, registry)
    stage._scores = {Partition(number): scores(number) for number in range(2)}
    written: list[int] = []

    class Topic:
        async def send(self, *, value: bytes, **_: Any) -> asyncio.Future[None]:
            written.append(decode_trending(value).partition)
            stage._scores[Partition(len(written) + 1)] = scores(len(written) + 1)
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

    stage._lists = cast(Any, Topic())
    asyncio.run(stage._write_lists())
    assert written == [0, 1]
    asyncio.run(stage._write_lists())
    assert written == [0, 1, 2, 3], "what came meanwhile is written the next time"
    assert registry.get_sample_value("nearline_trending_lists_total") == 4
    assert registry.get_sample_value("nearline_trending_ranking_seconds_count") == 4


def test_what_becomes_of_a_record_is_told(tmp_path: Path) -> None:
    stage = new_stage(tmp_path, CollectorRegistry())
    stage._scores = {Partition(0): TrendingScores(Partition(0), SETTINGS)}

    def becomes(action: str, partition: int = 0, key: bytes = b"m") -> str:
        value = events.line(events.activity("m", "p", action))
        return stage._count(SimpleNamespace(partition=partition, key=key, value=value, timestamp=time.time()))

    assert becomes("like") == "counted"
    assert becomes("impression") == "weightless"
    assert becomes("like", key=b"other") == "unreadable"
    assert becomes("like", partition=1) == "revoked"


def test_who_waits_to_be_let_in_by_its_group_is_still_at_its_start(tmp_path: Path) -> None:
    """Faust says that partitions are revoked before it has ever asked for some."""
    begun: list[str] = []
    heartbeat = HeartbeatFile(tmp_path, "trending", has_begun=lambda: begun.append("begun"))
    stage = TrendingStage(KafkaSettings(bootstrap_servers="127.0.0.1:1"), SETTINGS, tmp_path, heartbeat)

    async def tell(signal: Any) -> None:
        await signal.send(set())
        heartbeat.loop_turned()

    heartbeat.start()
    asyncio.run(tell(stage._app.on_partitions_revoked))
    assert begun == []
    asyncio.run(tell(stage._app.on_partitions_assigned))
    assert begun == ["begun"]


def test_an_error_is_no_list() -> None:
    """It was taken for a list that cannot be read, and the scores began from nothing."""

    class Message:
        def error(self) -> KafkaError:
            return KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

        def value(self) -> bytes:
            return b"Broker: Topic authorization failed"

    class Answers:
        def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
            return 0, 1

        def assign(self, _: Any) -> None: ...

        def poll(self, _: float) -> Message:
            return Message()

    with pytest.raises(KafkaRefused, match="authorization"):
        _last_list(cast(Consumer, Answers()), Partition(0))
