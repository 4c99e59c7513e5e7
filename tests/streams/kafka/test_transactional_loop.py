"""How a transactional loop ends: while the group's assignment is still on its way to it, and while its broker does not
answer."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Message

from schemas import topics
from streams.errors import KafkaUnavailable
from streams.kafka import transactional_loop
from streams.kafka.pace import FULL_PACE, Pace
from streams.kafka.processor import Processed, Processor
from streams.kafka.records import Output
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import until_no_lag, until_workers_share
from tests.kit.kafka.topics import Sender, keys_and_values, make_topics
from tests.kit.running import frozen, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


class HeldBack:
    def may_read(self) -> bool:
        return False

    def has_read(self, num_records: int) -> None:
        raise AssertionError("a loop that is held back reads nothing")


def new_loop(kafka: KafkaSettings, processor: Processor, group: str, pace: Pace = FULL_PACE) -> TransactionalLoop:
    """Reads posts, one a transaction."""
    return TransactionalLoop(
        kafka,
        processor,
        group=group,
        topics=[topics.POSTS],
        transactional_id=f"{group}-0",
        batch_records=lambda: 1,
        interval_s=0.0,
        pace=pace,
    )


def test_a_loop_that_was_given_partitions_since_its_last_poll_ends_at_once(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional_loop, "_POLL_HELD_BACK_S", 600.0)
    processor = create_autospec(Processor, instance=True)
    with in_thread(new_loop(kafka, processor, "closing", HeldBack()).run):
        until_workers_share(kafka, "closing", 1)
    processor.on_assigned.assert_not_called()
    processor.process.assert_not_called()


def test_a_loop_whose_broker_does_not_answer_within_a_transaction_ends_and_the_next_one_does_its_work(
    fresh_broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the client gives up: here it would after 15 s, after a broker's kill sometimes never."""
    kafka = make_topics(fresh_broker)
    broker = fresh_broker.embedded.running()
    assert broker is not None
    processor = create_autospec(Processor, instance=True)
    processor.due_outputs.return_value = None
    output = Output(topics.DEAD_LETTERS, b"key", b"done")

    # Only the first loop is that impatient: the next one may have a slow machine.
    with monkeypatch.context() as impatient, ExitStack() as freeze:
        impatient.setattr(transactional_loop, "_OFFSETS_S", 1.0)

        def process_and_freeze(records: Sequence[Message], _: Any) -> Processed:
            freeze.enter_context(frozen(broker.pid))
            return Processed([output], len(records))

        processor.process.side_effect = process_and_freeze
        Sender(kafka).send(topics.POSTS, [("key", b"value")])
        unanswered = pytest.raises(KafkaUnavailable, match="the offsets of a transaction has not ended within 1 s")
        with unanswered, in_thread(new_loop(kafka, processor, "unanswered").run):
            until(lambda: processor.process.called, "the record to be read")
    processor.on_committed.assert_not_called()

    processor.process.side_effect = lambda records, _: Processed([output], len(records))
    with in_thread(new_loop(kafka, processor, "unanswered").run):
        until_no_lag(kafka, "unanswered", [topics.POSTS])
    assert keys_and_values(kafka, topics.DEAD_LETTERS) == [(b"key", b"done")], "once"
