"""The hot feed: a thread that reads the newest records into the hot tier and the trending lists, and expires old posts.

The feed has no consumer group: every retriever reads all partitions, from the beginning of the hot tier's window. The
feed commits nothing, because the hot tier is only in memory. It never ends by itself: it waits out every outage and
continues at the next offset. Knows neither the cold tier nor requests.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from threading import Event, Thread
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from indexer.errors import TierRefused
from indexer.freshness import FreshnessWindow
from indexer.records import read_embedding
from indexer.tiers import HotTier
from retriever.feed import offsets as feed_offsets
from retriever.feed.offsets import Offsets
from retriever.feed.trending_lists import TrendingLists
from schemas import topics
from schemas.api import FreshnessStatus, HotPositions
from schemas.embeddings import PostEmbedding
from schemas.errors import BadRecord
from schemas.events import MAX_FUTURE_US
from schemas.headers import read_origin_ms
from schemas.ids import Generation, Micros
from schemas.trending import decode_trending

CONSUMER_OVERRIDES: Final[dict[str, Any]] = {
    "auto.offset.reset": "error",  # the feed decides where to start again
    "enable.partition.eof": True,  # without it no progress would show where compaction has removed the last records
}
"""What the feed's consumer needs in addition to the options of every consumer of ours."""

_BATCH: Final = 1000
_IDLE_S: Final = 0.1
_EXPIRE_EVERY_S: Final = 1.0
_RETRY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class HotFeed:
    """Call `start` and `close` once each. Any thread may use the other methods."""

    def __init__(
        self,
        new_consumer: Callable[[], Consumer],
        generation: Generation,
        hot: HotTier,
        trending: TrendingLists,
        *,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`new_consumer` makes a consumer with the options CONSUMER_OVERRIDES. `clock` gives seconds since 1970."""
        self.freshness = FreshnessWindow()
        self.skipped_records = 0
        """How many records were skipped since the start, because they are damaged or the tier refuses them."""
        self._new_consumer = new_consumer
        self._generation = generation
        self._posts_topic = topics.post_embeddings(generation)
        self._hot = hot
        self._trending = trending
        self._window_s = window_s
        self._clock = clock
        self._stop = Event()
        self._caught_up = Event()
        self._last_expiry_s = 0.0
        # The thread replaces these two dictionaries and never changes them, so that other threads can read them.
        self._offsets: Offsets = {}
        """The next offset to read, of each partition."""
        self._ends_at_start: Offsets = {}
        """Where the partitions ended when the feed started. From there on the feed has caught up."""
        self._interrupted = False
        self._thread = Thread(target=self._run, name="hot-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def problem(self) -> str | None:
        """None if the hot tier holds everything that was in the topics when the feed started. Before that, a sentence
        that says what is missing."""
        if self._caught_up.is_set():
            return None
        if not self._ends_at_start:
            # The error itself is not named, because `/readyz` shows this sentence to everybody, without an API key.
            why = "; the log of the retriever says why" if self._interrupted else ", it is starting"
            return f"the hot feed has not begun to read{why}"
        offsets = self._offsets
        remaining = sum(max(end - offsets.get(place, 0), 0) for place, end in self._ends_at_start.items())
        return f"the hot tier is catching up, {remaining} records to go"

    def progress(self) -> HotPositions:
        offsets = {
            partition: offset for (topic, partition), offset in self._offsets.items() if topic == self._posts_topic
        }
        freshness = self.freshness.summary()
        return HotPositions(
            generation=self._generation,
            topic=self._posts_topic,
            caught_up=self._caught_up.is_set(),
            positions=offsets,
            posts=self._hot.count(),
            freshness_s=FreshnessStatus(p50=freshness.p50, p99=freshness.p99),
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._expire_if_due()
                self._follow()
            except Exception as error:
                self._interrupted = True
                _log.warning("hot feed interrupted", error=_sentence(error), again_in_s=_RETRY_S)
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        """Reads with one consumer until the stop. Every error ends this call and is raised. The next call continues at
        the offsets that this one has reached."""
        with closing(self._new_consumer()) as consumer:
            self._assign(consumer)
            while not self._stop.is_set():
                # The order of effects:
                # 1. Read.
                messages = _read(consumer)
                # 2. Apply. If this fails, the same records are read again. Their revisions make that harmless.
                self._apply(messages)
                # 3. Publish how far the feed has read.
                self._advance(feed_offsets.next_to_read(consumer, self._offsets), _partition_ends(messages))
                self._expire_if_due()

    def _assign(self, consumer: Consumer) -> None:
        """Assigns all partitions. After an interruption each is read from its next offset, at the start from the
        beginning of the window."""
        posts = feed_offsets.partitions(consumer, self._posts_topic)
        lists = feed_offsets.partitions(consumer, topics.TRENDING)
        if not self._ends_at_start:
            self._ends_at_start = feed_offsets.ends(consumer, posts + lists)
        # A post may be dated up to MAX_FUTURE_US after its record, so it stays in the window for that much longer than
        # its record.
        start_s = self._clock() - self._window_s - MAX_FUTURE_US / 1e6
        starts = {**feed_offsets.since(consumer, posts, int(start_s * 1000)), **feed_offsets.beginnings(lists)}
        self._offsets = {place: self._offsets.get(place, offset) for place, offset in starts.items()}
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._offsets.items()])

    def _apply(self, messages: Sequence[Message]) -> None:
        embeddings: list[PostEmbedding] = []
        for message in messages:
            self._raise_if_error(message)
            if message.error() is not None:
                continue  # the end of a partition
            try:
                if message.topic() == self._posts_topic:
                    embeddings.append(_decode_post(message.value()))
                elif (value := message.value()) is not None:
                    self._trending.put(decode_trending(value))
            except BadRecord as error:
                self._skip(error, record=f"{message.topic()}/{message.partition()}@{message.offset()}")
        self._upsert(embeddings)
        if self._caught_up.is_set():
            self.freshness.add(_ages_s(messages, self._clock()))

    def _upsert(self, embeddings: Sequence[PostEmbedding]) -> None:
        try:
            self._hot.upsert(embeddings)
        except TierRefused:
            # Again, post by post, so that a refused post does not keep the others out.
            for embedding in embeddings:
                try:
                    self._hot.upsert([embedding])
                except TierRefused as error:
                    self._skip(error, post_id=embedding.post_id)

    def _skip(self, error: Exception, **record: str) -> None:
        """Counts and logs a record that cannot be applied. The index stage makes a dead letter of the same record."""
        self.skipped_records += 1
        _log.warning("record skipped", error=str(error), **record)

    def _raise_if_error(self, message: Message) -> None:
        """Raises KafkaException if the message is an error. The client also reports the end of a partition as an error
        message; that one is not raised."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            # The record at the next offset was deleted. Start again at the beginning of the window.
            self._offsets = {}
        raise KafkaException(error)

    def _advance(self, *reached: Offsets) -> None:
        """Moves the offsets forward to those that were reached, and notices when the feed has caught up."""
        offsets = dict(self._offsets)
        for reached_offsets in reached:
            offsets.update({place: max(offset, offsets.get(place, 0)) for place, offset in reached_offsets.items()})
        self._offsets = offsets
        if not self._caught_up.is_set() and all(offsets[place] >= end for place, end in self._ends_at_start.items()):
            _log.info("hot tier caught up", posts=self._hot.count())
            self._caught_up.set()

    def _expire_if_due(self) -> None:
        now_s = self._clock()
        if abs(now_s - self._last_expiry_s) >= _EXPIRE_EVERY_S:
            self._hot.expire(Micros(int(now_s * 1e6)))
            self._last_expiry_s = now_s


def _read(consumer: Consumer) -> list[Message]:
    """Waits for the first record, and takes only the further records that are there already. So a single new post is
    applied at once."""
    first = consumer.poll(_IDLE_S)
    return [] if first is None else [first, *consumer.consume(_BATCH - 1, 0)]


def _partition_ends(messages: Iterable[Message]) -> Offsets:
    """The end of each partition that a message reports as reached."""
    return {
        (str(message.topic()), int(message.partition() or 0)): int(message.offset() or 0)
        for message in messages
        if message.error() is not None
    }


def _ages_s(messages: Iterable[Message], now_s: float) -> list[float]:
    """The age of each input event whose effect is in these records. Records of delayed publications name no event, so
    they are left out."""
    return [now_s - origin / 1000 for origin in map(read_origin_ms, messages) if origin is not None]


def _sentence(error: Exception) -> str:
    return str(error.args[0].str()) if isinstance(error, KafkaException) else str(error)


def _decode_post(value: bytes | None) -> PostEmbedding:
    """Raises BadRecord."""
    embedding = read_embedding("post", value)
    assert isinstance(embedding, PostEmbedding)
    return embedding
