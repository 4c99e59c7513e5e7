"""A transactional loop that is stopped while the group's assignment is still on its way to it."""

from unittest.mock import create_autospec

import pytest

from schemas import topics
from streams.kafka import transactional_loop
from streams.kafka.processor import Processor
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import KafkaSettings
from tests.kit.kafka.groups import until_workers_share
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker


class HeldBack:
    def may_read(self) -> bool:
        return False

    def has_read(self, num_records: int) -> None:
        raise AssertionError("a loop that is held back reads nothing")


def test_a_loop_that_was_given_partitions_since_its_last_poll_ends_at_once(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional_loop, "_POLL_HELD_BACK_S", 600.0)
    processor = create_autospec(Processor, instance=True)
    loop = TransactionalLoop(
        kafka,
        processor,
        group="closing",
        topics=[topics.POSTS],
        transactional_id="closing-0",
        batch_records=lambda: 1,
        interval_s=0.0,
        pace=HeldBack(),
    )
    with in_thread(loop.run):
        until_workers_share(kafka, "closing", 1)
    processor.on_assigned.assert_not_called()
    processor.process.assert_not_called()
