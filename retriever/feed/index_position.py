"""How far the index stage is: the offsets that its group has committed, asked of the broker about every second.

The stage commits what is durable in the cold tier. So everything before these offsets is found by a search that begins
after they were asked for. Knows neither tiers nor records.
"""

from collections.abc import Callable
from contextlib import closing
from threading import Event, Thread
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from indexer.tiers import Offsets
from retriever.feed import offsets as feed_offsets
from retriever.feed.offsets import Place, PlaceOffsets, sentence
from schemas import topics
from schemas.ids import KINDS, Generation, Offset, Partition

_EVERY_S: Final = 1.0
_ASK_S: Final = 5.0

_log = structlog.get_logger(__name__)


class IndexPosition:
    """Call `start` and `close` once each. Any thread may call the other methods; they do not block."""

    def __init__(self, new_consumer: Callable[[], Consumer], generation: Generation, every_s: float = _EVERY_S) -> None:
        """`new_consumer` makes a consumer of the index group, which never joins it. It must read uncommitted, because a
        question for committed offsets would otherwise wait for open transactions."""
        self._new_consumer = new_consumer
        self._posts_topic = topics.post_embeddings(generation)
        self._members_topic = topics.member_embeddings(generation)
        self._request_topics = tuple(topics.replay_requests("index", kind, generation) for kind in KINDS)
        self._every_s = every_s
        self._committed: PlaceOffsets | None = None
        """Replaced by the thread and never changed."""
        self._stop = Event()
        self._thread = Thread(target=self._run, name="index-position", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tells the thread to end. `close` also waits for it."""
        self._stop.set()

    def close(self) -> None:
        self.stop()
        self._thread.join()

    def posts(self) -> Offsets:
        """For each partition of the posts' topic an offset before which everything is in the cold tier. Empty as long
        as nothing is known."""
        return self._of(self._posts_topic) or {}

    def members(self) -> Offsets:
        """The same of the members' topic."""
        return self._of(self._members_topic) or {}

    def members_if_known(self) -> Offsets | None:
        """None as long as nothing is known."""
        return self._of(self._members_topic)

    def replayed(self) -> PlaceOffsets | None:
        """How far the stage is with what it was asked to write to the cold tier again: when this has changed, so has
        what the cold tier says. None as long as nothing is known."""
        committed = self._committed
        if committed is None:
            return None
        return {place: offset for place, offset in committed.items() if place[0] in self._request_topics}

    def _of(self, topic: str) -> Offsets | None:
        if self._committed is None:
            return None
        return {
            Partition(number): Offset(offset) for (name, number), offset in self._committed.items() if name == topic
        }

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                # A client that knew the group's coordinator before the broker was killed may wait for it forever
                # (librdkafka 5511). So after an error there is a new one.
                with closing(self._new_consumer()) as consumer:
                    self._follow(consumer)
            except Exception as error:
                _log.warning("the broker does not say how far the index stage is", error=sentence(error))
                self._stop.wait(self._every_s)

    def _follow(self, consumer: Consumer) -> None:
        names = (self._posts_topic, self._members_topic, *self._request_topics)
        places = [place for topic in names for place in feed_offsets.partitions(consumer, topic)]
        while not self._stop.is_set():
            self._committed = _committed(consumer, places)
            self._stop.wait(self._every_s)


def _committed(consumer: Consumer, places: list[Place]) -> PlaceOffsets:
    """0 where nothing was committed."""
    answers = consumer.committed([TopicPartition(*place) for place in places], timeout=_ASK_S)
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return {(answer.topic, answer.partition): max(answer.offset, 0) for answer in answers}
