"""What the retriever's feeds ask the broker, on a real one."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from retriever.feed import offsets
from retriever.feed.follower import CONSUMER_OVERRIDES
from streams.kafka.clients import consumer_config, producer_config
from tests.kit.hot_feeding import Feeding
from tests.kit.retrievers import NOW_S, WINDOW_S, scored_post
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


class InterruptedConsumer(Consumer):
    """Something happens after its first question about offsets was answered."""

    def __init__(self, config: dict[str, Any], after_first: Callable[[], None]) -> None:
        super().__init__(config)
        self._after_first: Callable[[], None] | None = after_first

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        answers = super().offsets_for_times(places, timeout=timeout)
        after_first, self._after_first = self._after_first, None
        if after_first is not None:
            after_first()
        return answers


def test_what_is_committed_while_it_asks_is_read(feeding: Feeding) -> None:
    """A transaction was open when the first question was asked, and is committed when the second one is."""
    over = {"transactional.id": feeding.generation}
    feeding.producer = Producer(producer_config(feeding.kafka, **over))
    feeding.producer.init_transactions(30)
    feeding.producer.begin_transaction()
    feeding.send(scored_post("a"), scored_post("b"), partition=0)
    config = consumer_config(feeding.kafka, "offsets", **CONSUMER_OVERRIDES)
    place = (feeding.topic, 0)

    def commit() -> None:
        feeding.producer.commit_transaction(30)
        other = Consumer(config)
        until(lambda: offsets.ends(other, [place])[place] == feeding.ends()[0], "the mark of the commit")
        other.close()

    consumer = InterruptedConsumer(config, commit)
    starts = offsets.window_starts(consumer, [place], WINDOW_S, NOW_S)
    consumer.close()
    assert starts == {place: 0}
    assert feeding.ends()[0] == 3
