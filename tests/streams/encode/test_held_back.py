"""An encode stage that others go before: what it does while it is held back, and when it goes on."""

from collections import defaultdict

import pytest

from schemas import topics
from streams.kafka import transactional_loop
from tests.kit.data.contexts import post_context
from tests.kit.kafka.groups import until_workers_share
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.running import RecordedHeartbeat, in_thread

pytestmark = pytest.mark.broker


class SetPace:
    def __init__(self) -> None:
        self.is_open = False
        self.read: list[int] = []

    def may_read(self) -> bool:
        return self.is_open

    def has_read(self, num_records: int) -> None:
        self.read.append(num_records)


@pytest.fixture
def _polls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactional_loop, "_POLL_HELD_BACK_S", 0.0)


@pytest.mark.usefixtures("_polls_at_once")
def test_it_stays_in_its_group_reads_nothing_and_says_that_it_is_alive(encode: EncodeStageSetup) -> None:
    encode.send(*(post_context(post_id=f"p{number}") for number in range(50)))
    pace, heartbeats = SetPace(), defaultdict[str, RecordedHeartbeat](RecordedHeartbeat)
    group = topics.encode_group(encode.generation)
    with in_thread(encode.stage(heartbeats.__getitem__, pace).run):
        until_workers_share(encode.kafka, group, 3)
        for heartbeat in heartbeats.values():
            heartbeat.until_turned()
            assert heartbeat.beats.acquire(timeout=60)
        assert (pace.read, encode.posts()) == ([], [])
        pace.is_open = True
        encode.until_no_lag()
        pace.is_open = False
        read = sum(pace.read)
        encode.send(post_context(post_id="late"))
        heartbeats["post"].until_turned()
        heartbeats["post-2"].until_turned()
        assert sum(pace.read) == read == 50
        pace.is_open = True
        encode.until_no_lag()
    assert sorted(message.key() for message in encode.posts()) == sorted(
        [*(f"p{number}".encode() for number in range(50)), b"late"]
    )


@pytest.mark.usefixtures("_polls_at_once")
def test_it_gives_its_partitions_back_when_it_is_stopped(encode: EncodeStageSetup) -> None:
    encode.send(post_context(post_id="p"))
    with in_thread(encode.stage(pace=SetPace()).run):
        until_workers_share(encode.kafka, topics.encode_group(encode.generation), 3)
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    assert [message.key() for message in encode.posts()] == [b"p"]
