"""Two workers of a stage: one ends or freezes, and the other takes over its partitions."""

import itertools
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client import CollectorRegistry

from nearline import children
from nearline.up.supervisor import Part, Supervisor
from schemas import topics
from schemas.ids import Partition
from streams.contexts.restore import restore, topic_ids
from streams.contexts.row_store import RowStore
from streams.encode.metrics import EncodeMetrics
from streams.encode.stage import EncodeStage
from streams.errors import KafkaUnavailable
from streams.kafka import group_progress
from streams.kafka.clients import consumer_config, producer_config
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.kafka.transactional_loop import TRANSACTION_MS
from streams.settings import EncodeSettings
from tests.kit.children.context_stage import REFUSED
from tests.kit.data.contexts import post_context
from tests.kit.data.shuffled_events import ShuffledEvents, slices
from tests.kit.encoders import HashEncoder
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup, EncodeStageSetup
from tests.kit.running import child, frozen, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

BROKERS_CHECK_S = 1.0
"""How often the embedded broker looks for expired transactions: a setting of ours."""
FROZEN_S = 4.0
"""How long each of three questions to the frozen broker waits. Together they take longer than the sessions of the
workers (2 s) and of the broker (9 s)."""
JOIN_S = 30.0
"""A session of two seconds, a rebalance and a restore, on a busy machine."""


@pytest.mark.timeout(240)
def test_two_workers_outlive_a_broker_that_stops_and_one_that_is_killed(
    fresh_broker: RunningBroker, tmp_path: Path
) -> None:
    contexts, events = ContextStageSetup(fresh_broker, tmp_path), ShuffledEvents(seed=5, num_actions=900)
    parts = slices(events.sent(), 4)
    with in_thread(lambda stop: _keep_running(contexts, ("a", "b"), stop)):
        contexts.send_all(next(parts))
        contexts.until_done()
        for end in (fresh_broker.stop, fresh_broker.kill):
            contexts.send_all(next(parts))
            end()
            fresh_broker.start()
        contexts.send_all(next(parts))
        contexts.check(events)


@pytest.mark.timeout(240)
def test_a_broker_that_freezes_and_thaws_is_waited_out(fresh_broker: RunningBroker, tmp_path: Path) -> None:
    """It keeps its connections and answers nobody, for longer than any session lasts."""
    contexts, events = ContextStageSetup(fresh_broker, tmp_path), ShuffledEvents(seed=11, num_actions=400)
    early, amid, late = slices(events.sent(), 3)
    with in_thread(lambda stop: _keep_running(contexts, ("a", "b"), stop)):
        contexts.send_all(early)
        contexts.until_done()
        contexts.send_all(amid)
        broker = fresh_broker.embedded.running()
        assert broker is not None
        with frozen(broker.pid):
            for _ in range(3):
                with closing(OffsetReader(contexts.kafka, FROZEN_S)) as reader, pytest.raises(KafkaUnavailable):
                    reader.places([topics.POSTS])
        contexts.send_all(late)
        contexts.check(events)


def test_a_worker_that_had_nothing_to_do_when_its_broker_died_goes_on(
    fresh_broker: RunningBroker, tmp_path: Path
) -> None:
    """Its client waited for ever for the broker that was killed. `nearline chaos` found this: a kill -9 of the broker
    cost a minute or more, with any seed."""
    contexts, events = ContextStageSetup(fresh_broker, tmp_path / "idle"), ShuffledEvents(seed=7, num_actions=100)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    with contexts.worker():
        contexts.until_done()
        fresh_broker.kill()
        fresh_broker.start()
        contexts.send_all(late)
        contexts.until_done(30)


def test_a_dead_workers_open_transaction_holds_nobody_up_for_longer_than_its_time(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    contexts, events = ContextStageSetup(clean_topics, tmp_path), ShuffledEvents(seed=6, num_actions=300)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    with contexts.worker("dies", crash="transaction.outputs-sent:3") as dying:
        assert dying.wait(60) == EXIT_STATUS
    began = time.monotonic()
    contexts.send_all(late)
    with contexts.worker("lives"):
        contexts.until_done()
        assert time.monotonic() - began < TRANSACTION_MS / 1000 + BROKERS_CHECK_S + JOIN_S
        contexts.check(events)


def test_offsets_in_a_transaction_that_never_ends_are_reported_with_the_mend(
    clean_topics: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka may forget a transaction (see `nearline/broker/fenced_start.py`). Then an operator has to end it."""
    monkeypatch.setattr(group_progress, "_CALL_S", 2.0)
    encode = EncodeStageSetup(clean_topics)
    group = topics.encode_group(encode.generation)
    before = Producer(producer_config(encode.kafka, **{"transactional.id": "the-owner-before"}))
    before.init_transactions(30)
    before.begin_transaction()
    reader = Consumer(consumer_config(encode.kafka, group))
    offsets = [TopicPartition(topics.POST_CONTEXTS, 0, 0)]
    before.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), 30)
    reader.close()
    with pytest.raises(KafkaUnavailable, match=f"the offsets of the group {group} .* find-hanging"):
        encode.stage().run(Event())
    before.abort_transaction(30)


def test_a_frozen_worker_that_has_heard_that_it_is_out_of_the_group_commits_nothing(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    contexts, events = ContextStageSetup(clean_topics, tmp_path), ShuffledEvents(seed=8, num_actions=100)
    contexts.send_all(events.sent())
    arguments = clean_topics.bootstrap_servers, str(tmp_path), "frozen"
    with child("tests.kit.children.frozen_context_stage", *arguments) as frozen:
        until(lambda: children.is_stopped(frozen.pid), "it to have a batch, and freeze", 30)
        with contexts.worker("awake"):
            contexts.until_done()
            frozen.send_signal(signal.SIGCONT)
            assert frozen.wait(30) == REFUSED
            assert frozen.stdout is not None
            assert "Fenced" in frozen.stdout.read()
            contexts.check(events)


def test_a_partition_that_moves_while_its_last_commit_has_no_marker_yet_waits_for_it(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    kafka, place = ContextStageSetup(clean_topics, tmp_path).kafka, Place(topics.POST_CHANGELOG, Partition(0))
    before = Producer(producer_config(kafka, **{"transactional.id": "the-owner-before"}))
    before.init_transactions(30)
    before.begin_transaction()
    before.produce(place.topic, b"its last row", b"key", partition=place.partition)
    assert before.flush(30) == 0
    table = RowStore(tmp_path / "rows", place, topic_ids(kafka, [place.topic])[place.topic])
    reads: list[None] = []
    with ThreadPoolExecutor(1) as pool:
        restored = pool.submit(restore, kafka, [table], lambda: reads.append(None))
        # The restore reads again and again, and gets nothing at or after the open transaction.
        until(lambda: len(reads) > 30 or restored.done(), "the new owner to read")
        before.commit_transaction(30)
        assert restored.result() == 1
    assert table.get(b"key") == b"its last row"


def test_a_second_encode_worker_joins_and_leaves_and_repeats_nothing(clean_topics: RunningBroker) -> None:
    encode = EncodeStageSetup(clean_topics)
    first, second = HashEncoder(), HashEncoder()
    numbers = itertools.count()

    def send(number: int) -> None:
        encode.send(*(post_context(post_id=f"p{next(numbers)}") for _ in range(number)))

    def second_works() -> bool:
        send(10)
        return bool(second.posts)

    with in_thread(_encode_stage(encode, first, "test-0").run):
        send(100)
        with in_thread(_encode_stage(encode, second, "test-1").run):
            until(second_works, "the second worker to have partitions", every_s=0.1)
        send(100)
        encode.until_no_lag()
    assert first.posts
    sent = sorted(f"p{number}".encode() for number in range(next(numbers)))
    assert sorted(message.key() or b"" for message in encode.posts()) == sent


def _keep_running(contexts: ContextStageSetup, slots: tuple[str, ...], stop: Event) -> None:
    """Starts workers that leave during an outage again, as `nearline up` does."""
    supervisor = Supervisor()
    for slot in slots:
        arguments = contexts.broker.bootstrap_servers, str(contexts.folder), slot
        command = [sys.executable, "-m", "tests.kit.children.context_stage", *arguments]
        supervisor.start(Part(slot, lambda command=command: children.spawn(command, dies_with_parent=True)))  # type: ignore[misc]
    while not stop.wait(0.05):
        supervisor.look()
    supervisor.drain(slots, 5)


def _encode_stage(encode: EncodeStageSetup, encoder: HashEncoder, slot: str) -> EncodeStage:
    metrics = EncodeMetrics(CollectorRegistry())
    return EncodeStage(encode.kafka, EncodeSettings(), encoder, encode.generation, slot, metrics=metrics)
