"""A thread that follows the topic `generations`, for a process that must know at once what changes.

It has no consumer group and commits nothing: every process reads everything. It never ends by itself: outages are
waited out. While the records contradict one another, because one is damaged, the last good state stays.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from schemas.ids import Offset, Partition
from schemas.topics import GENERATIONS
from streams.errors import KafkaUnavailable
from streams.generations.state import Damage, Generations
from streams.kafka.clients import new_consumer
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place, offset_of
from streams.settings import KafkaSettings

_PLACE: Final = Place(GENERATIONS, Partition(0))
_POLL_S: Final = 0.1
_RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class GenerationsFollower:
    """Any thread may call every method. `running` starts the thread and ends it."""

    def __init__(self, kafka: KafkaSettings, on_change: Callable[[Generations], None] | None = None) -> None:
        """`on_change` is called from the follower's thread with each new state, beginning with the first. An error that
        it raises is logged, and it is called again with the newest state a moment later."""
        self._kafka = kafka
        self._on_change = on_change
        self.damages: tuple[Damage, ...] = ()
        """Of the log as it was read last, also where the last good state stays because of them."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generations", daemon=True)
        self._changed = threading.Condition()
        # What `current` returns. Guarded by `_changed`.
        self._current: Generations | None = None
        self._closed = False
        # Only the thread uses these. What was read may contradict itself until the end is reached.
        self._read = Generations()
        # The end that others may have been told of. Nothing older is passed on.
        self._must_reach = Offset(0)
        self._told: Generations | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tells the thread to end. `close` also waits for it."""
        self._stop.set()

    def close(self) -> None:
        """Waits until the thread has ended. Nobody waits in `wait_for` any more after that."""
        self.stop()
        self._thread.join()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator["GenerationsFollower"]:
        self.start()
        try:
            yield self
        finally:
            self.close()

    def current(self) -> Generations | None:
        """The last good state. None until the log was read to its end for the first time."""
        with self._changed:
            return self._current

    def wait_for(self, predicate: Callable[[Generations], bool], timeout_s: float | None = None) -> Generations | None:
        """The first state from now on for which the predicate holds. None when the time is over, or after `close`."""

        def holds() -> bool:
            return self._closed or (self._current is not None and predicate(self._current))

        with self._changed:
            found = self._changed.wait_for(holds, timeout_s)
            return self._current if found and not self._closed else None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:
                log.warning("the generations cannot be followed now", error=str(error), again_in_s=_RETRY_S)
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        """Reads with one consumer until the stop. Every error ends this call. The next one reads all of it again: it is
        little, and so it does not matter whether the log is still the same one."""
        overrides = {
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            # Each process has a follower, and hardly ever is there anything to follow.
            "fetch.wait.max.ms": 2_000,
        }
        with kafka_errors(), closing(new_consumer(self._kafka, "nearline-generations", **overrides)) as consumer:
            self._begin(consumer)
            while not self._stop.is_set():
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take(message, consumer)
                self._tell()

    def _begin(self, consumer: Consumer) -> None:
        # Not asked of the consumer: to a reader of committed records the end is where an open transaction begins.
        with closing(OffsetReader(self._kafka)) as reader:
            starts, ends = reader.bounds([GENERATIONS])
        if _PLACE not in ends:
            raise KafkaUnavailable("there is no topic generations yet")
        self._read, self._must_reach = Generations(), ends[_PLACE]
        if starts[_PLACE] == ends[_PLACE]:
            self._publish()
        consumer.assign([TopicPartition(*_PLACE, starts[_PLACE])])

    def _take(self, message: Message, consumer: Consumer) -> None:
        error = message.error()
        if error is None:
            self._read = self._read.with_message(message.key(), message.value(), offset_of(message))
            # The end is said only when the broker has waited for more. Behind the last record of a transaction there is
            # its control record alone.
            _, end = consumer.get_watermark_offsets(TopicPartition(*_PLACE), cached=True)
            if offset_of(message) + 2 >= end >= self._must_reach:
                self._publish()
        elif error.code() != KafkaError._PARTITION_EOF:
            raise translate(error)
        elif offset_of(message) >= self._must_reach:
            self._publish()
        else:
            log.warning("a transaction on the generations is open; the newest state is known when it has ended")

    def _publish(self) -> None:
        """Makes what was read the current state, if it is a good one."""
        for damage in self._read.damages:
            if damage not in self.damages:
                log.error("a damaged record; what its key stands for stays as it was", error=str(damage))
        self.damages = self._read.damages
        contradiction = self._read.contradiction()
        if self._read.pointer is None and self._current is not None and self._current.pointer is not None:
            contradiction = "the log is empty now"
        if contradiction is not None:
            log.error("the last good state of the generations stays", cause=contradiction)
            return
        with self._changed:
            self._current = self._read
            self._changed.notify_all()

    def _tell(self) -> None:
        if self._on_change is None or self._current is None or self._current == self._told:
            return
        state = self._current
        try:
            self._on_change(state)
        except Exception as error:
            log.exception("a new state of the generations was not taken", error=str(error), again_in_s=_RETRY_S)
            self._stop.wait(_RETRY_S)
        else:
            self._told = state
