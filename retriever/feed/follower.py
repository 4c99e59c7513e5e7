"""A thread that reads all partitions of some topics, from somewhere on, and hands the records to a receiver.

It has no consumer group: every process reads everything for itself. It commits nothing, because what it fills is in
memory. It never ends by itself: it waits out every outage and goes on at the next offset. Where records were deleted
before it read them, it begins that partition anew and says so. Knows nothing of what the records say.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from threading import Event, Thread
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from retriever.errors import RetrieverUnavailable
from retriever.feed import offsets as feed_offsets
from retriever.feed.end_watch import EndWatch
from retriever.feed.offsets import Place, PlaceOffsets, sentence

CONSUMER_OVERRIDES: Final[dict[str, Any]] = {
    "auto.offset.reset": "error",  # the follower decides where to start again
    "enable.partition.eof": True,  # without it no progress would show where compaction has removed the last records
}
"""What the follower's consumer needs in addition to the options of every consumer of ours."""

_BATCH: Final = 1000
_IDLE_S: Final = 0.1
_ASK_EVERY_S: Final = 1.0
_RETRY_S: Final = 1.0
"""Longer than most questions take. So a question that began before a partition is begun anew has its answer first."""

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """All methods are called from the follower's thread. An error that they raise is logged, and the same records come
    again."""

    def resume(self) -> PlaceOffsets:
        """Called once, as soon as the broker answers. For each partition of which everything before some offset is
        known already, that offset; the partition is read from there on and not begun."""
        ...

    def find_starts(self, consumer: Consumer, places: list[Place]) -> PlaceOffsets:
        """Where to begin with these partitions. May ask the broker."""
        ...

    def lost(self) -> None:
        """Records were lost before they were read. What was kept for `resume` is void; `begin` follows a moment later,
        perhaps in another process."""
        ...

    def begin(self, floor: PlaceOffsets) -> None:
        """Of these partitions the records come from these offsets on; what came of them before is void. The offset is 0
        where nothing was ever written before, apart from what was compacted away. Called for each partition before its
        first record, and again when records were lost unread."""
        ...

    def receive(self, records: Sequence[Message]) -> None:
        """Records in the order of each partition's offsets. The same ones may come again."""
        ...

    def tick(self) -> None:
        """Called again and again, also while there is nothing to read: about ten times a second, during an outage every
        few seconds."""
        ...

    def finish(self) -> None:
        """Called once, after the stop. May take a few seconds."""
        ...


class Follower:
    """Call `start` and `close` once each. Any thread may read `offsets`."""

    def __init__(
        self,
        name: str,
        new_consumer: Callable[[], Consumer],
        topics: Sequence[str],
        receiver: Receiver,
        watch: EndWatch,
    ) -> None:
        """`new_consumer` makes a consumer with the options CONSUMER_OVERRIDES."""
        self.offsets: PlaceOffsets = {}
        """The next offset to read, of each partition. Replaced by the thread and never changed."""
        self._name = name
        self._new_consumer = new_consumer
        self._topics = topics
        self._receiver = receiver
        self._watch = watch
        self._stop = Event()
        self._resumed = False
        self._ask_at_s = 0.0
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tells the thread to end. `close` also waits for it."""
        self._stop.set()

    def close(self) -> None:
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._receiver.tick()
                self._follow()
            except Exception as error:
                self._watch.interrupted()
                _log.warning(f"{self._name} interrupted", error=sentence(error), again_in_s=_RETRY_S)
                self._stop.wait(_RETRY_S)
        self._receiver.finish()

    def _follow(self) -> None:
        """Reads with one consumer until the stop. Every error ends this call and is raised. The next call continues at
        the offsets that this one has reached."""
        with closing(self._new_consumer()) as consumer:
            self._assign(consumer)
            while not self._stop.is_set():
                self._step(consumer)

    def _step(self, consumer: Consumer) -> None:
        # The order of effects:
        # 1. Read.
        messages = _read(consumer)
        self._raise_errors(messages)
        # 2. Apply. If this fails, the same records are read again. Their revisions make that harmless.
        self._receiver.receive([message for message in messages if message.error() is None])
        # 3. Publish how far the feed has read.
        self._advance(feed_offsets.next_to_read(consumer, self.offsets), _partition_ends(messages))
        self._ask_if_due(consumer)
        self._receiver.tick()

    def _assign(self, consumer: Consumer) -> None:
        """Assigns all partitions. After an interruption each is read from its next offset."""
        places = [place for topic in self._topics for place in feed_offsets.partitions(consumer, topic)]
        if not self._resumed:
            self.offsets = self._receiver.resume()
            self._resumed = True
        ranges = feed_offsets.ranges(consumer, places)
        lost = [place for place, offset in self.offsets.items() if offset not in ranges.get(place, range(0))]
        self._forget(lost)
        self._begin(consumer, [place for place in places if place not in self.offsets], ranges)
        consumer.assign([TopicPartition(*place, offset) for place, offset in self.offsets.items()])
        self._ask_at_s = 0.0

    def _forget(self, lost: Sequence[Place]) -> None:
        """These partitions do not have the next records any more, so they are begun anew, after a pause."""
        if not lost:
            return
        _log.warning("records are gone that were not read yet", feed=self._name, partitions=sorted(lost))
        # Before anything is forgotten, so that nobody takes what is left for whole.
        self._watch.restart()
        self._receiver.lost()
        self.offsets = {place: offset for place, offset in self.offsets.items() if place not in lost}
        self._stop.wait(_RETRY_S)

    def _begin(self, consumer: Consumer, places: list[Place], ranges: Mapping[Place, range]) -> None:
        if not places:
            return
        starts = self._receiver.find_starts(consumer, places)
        # The first records may have been compacted away. If they were deleted, though, others may still know them.
        firsts = feed_offsets.since(consumer, places, 0)
        all_there = [place for place in places if starts[place] <= firsts[place] and ranges[place].start == 0]
        self._receiver.begin({**starts, **dict.fromkeys(all_there, 0)})
        self.offsets = {**self.offsets, **starts}

    def _raise_errors(self, messages: Iterable[Message]) -> None:
        """Raises KafkaException if a message is an error. The client also reports the end of a partition as an error
        message; that one is not raised."""
        for message in messages:
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                continue
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                # One partition has lost records that were not read yet, or a broker its newest ones. Then others may
                # have, too, and a new consumer would not notice where new records have taken their offsets.
                self._forget(list(self.offsets))
            raise KafkaException(error)

    def _advance(self, *reached: PlaceOffsets) -> None:
        offsets = dict(self.offsets)
        for reached_offsets in reached:
            offsets.update({place: max(offset, offsets.get(place, 0)) for place, offset in reached_offsets.items()})
        if offsets != self.offsets:
            self.offsets = offsets
        self._watch.moved(offsets)

    def _ask_if_due(self, consumer: Consumer) -> None:
        now_s = time.monotonic()
        if now_s >= self._ask_at_s:
            self._watch.ask(lambda: self._ends(consumer))
            self._ask_at_s = now_s + _ASK_EVERY_S

    def _ends(self, consumer: Consumer) -> PlaceOffsets:
        ends = feed_offsets.ends(consumer, self.offsets)
        if any(end < self.offsets[place] for place, end in ends.items()):
            self._forget(list(self.offsets))
            raise RetrieverUnavailable("the broker has lost its newest records")
        return ends


def _read(consumer: Consumer) -> list[Message]:
    """Waits for the first record, and takes only the further records that are there already. So a single new post is
    applied at once."""
    first = consumer.poll(_IDLE_S)
    return [] if first is None else [first, *consumer.consume(_BATCH - 1, 0)]


def _partition_ends(messages: Iterable[Message]) -> PlaceOffsets:
    """The end of each partition that a message reports as reached."""
    return {
        (str(message.topic()), int(message.partition() or 0)): int(message.offset() or 0)
        for message in messages
        if message.error() is not None
    }
