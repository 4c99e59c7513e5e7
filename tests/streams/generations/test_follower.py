"""The follower of the generations on a real broker."""

from collections.abc import Iterator, MutableMapping, Sequence
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas import topics
from schemas.generations import Pointer, encode_record, key_of
from schemas.ids import Generation
from streams.generations.follower import GenerationsFollower
from streams.generations.log import change_generations
from streams.generations.state import Generations
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import founded, next_records, two_live
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender, transaction
from tests.kit.running import in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

WAIT_S = 60.0
LOG = topics.TopicSpec(topics.GENERATIONS, "state", partitions=1)


@pytest.fixture
def follower(kafka: KafkaSettings) -> Iterator[GenerationsFollower]:
    with GenerationsFollower(kafka).running() as follower:
        yield follower


def causes(logs: Sequence[MutableMapping[str, Any]]) -> str:
    """Why the last good state stays, as the follower has logged it."""
    return "; ".join(line["cause"] for line in logs if line["event"].startswith("the last good state"))


def until_state(follower: GenerationsFollower, state: Generations) -> None:
    until(lambda: follower.current() == state, f"the follower to see {state}", WAIT_S)


def test_it_sees_each_state_and_calls_back_with_it(kafka: KafkaSettings) -> None:
    seen: list[Generations] = []
    follower = GenerationsFollower(kafka, seen.append)
    assert follower.current() is None
    with follower.running():
        until_state(follower, Generations())
        states = [Generations()]
        for _ in range(3):
            states.append(change_generations(kafka, next_records))
            until_state(follower, states[-1])
        until(lambda: seen[-1:] == states[-1:], "the last call", WAIT_S)
    assert seen == [state for state in states if state in seen], "in order, and never the middle of a transaction"


def test_the_first_state_is_the_newest(kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)
    change_generations(kafka, next_records)
    seen: list[Generations] = []
    with GenerationsFollower(kafka, seen.append).running() as follower:
        assert follower.wait_for(lambda _: True, WAIT_S) == two_live("ready")
        until(lambda: seen == [two_live("ready")], "the call", WAIT_S)


def test_the_first_state_is_not_older_than_what_is_committed_behind_an_open_transaction(kafka: KafkaSettings) -> None:
    hanging = transaction(kafka, topics.GENERATIONS, 0, commit=None)
    records = [(key_of(record).decode(), encode_record(record)) for record in next_records(Generations())]
    Sender(kafka, "beside it").send(topics.GENERATIONS, records)
    with GenerationsFollower(kafka).running() as follower, capture_logs() as logs:
        until(lambda: any("is open" in line["event"] for line in logs), "the end of what is committed", WAIT_S)
        assert follower.current() is None
        hanging.abort_transaction(20)
        assert follower.wait_for(lambda _: True, WAIT_S) == founded()


def test_a_transaction_that_comes_to_nothing_is_waited_for_too(kafka: KafkaSettings) -> None:
    """Such as one that closes segments."""
    change_generations(kafka, next_records)
    hanging = transaction(kafka, topics.GENERATIONS, 0, commit=None)
    with GenerationsFollower(kafka).running() as follower, capture_logs() as logs:
        until(lambda: any("is open" in line["event"] for line in logs), "the end of what is committed", WAIT_S)
        assert follower.current() is None
        hanging.abort_transaction(20)
        assert follower.wait_for(lambda _: True, WAIT_S) == founded()


def test_waiting_ends_with_the_time_and_with_the_follower(kafka: KafkaSettings) -> None:
    follower = GenerationsFollower(kafka)
    with follower.running():
        assert follower.wait_for(lambda _: False, 0.01) is None
        waiting = Event()

        def wait(_: Event) -> None:
            waiting.set()
            assert follower.wait_for(lambda _: False) is None

        with in_thread(wait):
            waiting.wait(WAIT_S)
            follower.close()


def test_a_damaged_record_leaves_the_last_good_state(kafka: KafkaSettings, follower: GenerationsFollower) -> None:
    change_generations(kafka, next_records)
    until_state(follower, founded())
    sender = Sender(kafka)
    sender.send(topics.GENERATIONS, [("pointer", b"???")])
    state = follower.wait_for(lambda state: bool(state.damages), WAIT_S)
    assert state is not None
    assert (state.records, state.pointer) == (founded().records, founded().pointer)
    # A good record that contradicts the others, and then one that mends it.
    with capture_logs() as logs:
        sender.send(topics.GENERATIONS, [("pointer", encode_record(Pointer(Generation("never-seen"))))])
        until(lambda: "never-seen is serving" in causes(logs), "it to be read", WAIT_S)
    assert follower.current() == state
    sender.send(topics.GENERATIONS, [("pointer", encode_record(Pointer(Generation("a-1"))))])
    until_state(follower, founded())


def test_what_a_callback_raises_is_repeated_until_it_takes_the_state(kafka: KafkaSettings) -> None:
    calls: list[Generations] = []

    def fail_once(state: Generations) -> None:
        calls.append(state)
        if len(calls) == 1:
            raise ValueError("not now")

    with GenerationsFollower(kafka, fail_once).running():
        until(lambda: calls == [Generations()] * 2, "the call to be repeated", WAIT_S)


def test_an_outage_is_waited_out(fresh_broker: RunningBroker) -> None:
    kafka = KafkaSettings(bootstrap_servers=fresh_broker.bootstrap_servers)
    with GenerationsFollower(kafka).running() as follower:
        ensure_topics(kafka, [LOG])
        change_generations(kafka, next_records)
        until_state(follower, founded())
        fresh_broker.kill()
        assert follower.current() == founded()
        fresh_broker.start()
        change_generations(kafka, next_records)
        until_state(follower, two_live("ready"))


def test_a_log_that_is_made_anew_is_followed_and_an_empty_one_is_not_believed(fresh_broker: RunningBroker) -> None:
    kafka = KafkaSettings(bootstrap_servers=fresh_broker.bootstrap_servers)
    ensure_topics(kafka, [LOG])
    change_generations(kafka, next_records)
    change_generations(kafka, next_records)
    with GenerationsFollower(kafka).running() as follower:
        until_state(follower, two_live("ready"))
        fresh_broker.delete_topics(topics.GENERATIONS)
        with capture_logs() as logs:
            ensure_topics(kafka, [LOG])
            until(lambda: "the log is empty now" in causes(logs), "the new log to be read", WAIT_S)
        assert follower.current() == two_live("ready")
        change_generations(kafka, next_records)
        until_state(follower, founded())
