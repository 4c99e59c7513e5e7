"""The member feed: reads the newest records of members into the member store.

It has a thread of its own, so that members and posts do not wait for each other. Knows neither tiers nor requests.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from confluent_kafka import Consumer, Message

from indexer.freshness import FreshKind, FreshnessCount, FreshnessCounts
from indexer.records import read_embedding
from indexer.tiers import IndexRecord, Offsets
from retriever.errors import RetrieverUnavailable
from retriever.feed import offsets as feed_offsets
from retriever.feed.end_watch import EndWatch
from retriever.feed.follower import Follower
from retriever.feed.member_store import MemberStore
from retriever.feed.offsets import Place, PlaceOffsets
from retriever.feed.records import SkippingRecords, age_s, place_of
from schemas import topics
from schemas.embeddings import MemberEmbedding
from schemas.ids import Generation, Offset, Partition


class MemberFeedFigures(NamedTuple):
    positions: Offsets
    """The next offset to read, of each partition. Empty until the broker has answered."""
    records_left: int | None
    """How many there are that were not read yet. None if the broker has not said it lately."""
    skipped_records: int
    """Since the start: they are damaged, or the store refuses them."""
    by_kind: Mapping[FreshKind, FreshnessCount] = MappingProxyType({})
    """Freshness since the start."""


class MemberFeed:
    """Call `start` and `close` once each."""

    def __init__(
        self,
        new_consumer: Callable[[], Consumer],
        generation: Generation,
        store: MemberStore,
        watch: EndWatch,
        indexed: Callable[[], Offsets | None],
        *,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`new_consumer` makes a consumer with the options CONSUMER_OVERRIDES. `indexed` says how far the index stage
        is, None until that is known. `clock` gives seconds since 1970. The store must have been made with
        `watch.problem`."""
        self._store = store
        self._topic = topics.member_embeddings(generation)
        self._indexed = indexed
        self._window_s = window_s
        self._clock = clock
        self._records = SkippingRecords()
        self._watch = watch
        self._by_kind = FreshnessCounts()
        self._follower = Follower("member-feed", new_consumer, [self._topic], self, watch)

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        """Tells the thread to end. `close` also waits for it."""
        self._follower.stop()

    def close(self) -> None:
        self._follower.close()

    def figures(self) -> MemberFeedFigures:
        left, by_kind = self._watch.records_left(), self._by_kind.counts()
        return MemberFeedFigures(self._positions(), left, self._records.skipped, by_kind)

    def _positions(self) -> Offsets:
        return _of_partitions(self._follower.offsets)

    # The follower's thread calls all of the following.

    def find_starts(self, consumer: Consumer, places: list[Place]) -> PlaceOffsets:
        """Where the index stage is: the cold tier has everything before. But not before the window, which holds for
        posts too, and from the very start if that has no end."""
        starts = feed_offsets.window_starts(consumer, places, self._window_s, self._clock())
        if math.isinf(self._window_s):
            return starts
        indexed = self._indexed()
        if indexed is None:
            raise RetrieverUnavailable("the broker has not said yet how far the index stage is")
        ends = feed_offsets.ends(consumer, places)
        return {
            place: min(max(start, indexed.get(Partition(place[1]), Offset(0))), ends[place])
            for place, start in starts.items()
        }

    def resume(self) -> PlaceOffsets:
        return {}

    def lost(self) -> None: ...

    def begin(self, floor: PlaceOffsets) -> None:
        """The store drops all members, also those of other partitions: it holds those from the next record on."""
        self._store.begin({**self._positions(), **_of_partitions(floor)})

    def receive(self, records: Sequence[Message]) -> None:
        decoded = [(message, self._records.decode(message, _decode_member)) for message in records]
        members = [(message, embedding) for message, embedding in decoded if embedding is not None]
        records_of_members = [IndexRecord(embedding, *place_of(message)) for message, embedding in members]
        self._records.apply(records_of_members, self._store.apply)
        if self._watch.has_caught_up:
            now_s = self._clock()
            for message, embedding in members:
                if (age := age_s(message, now_s)) is not None:
                    self._by_kind.add("delete" if embedding.deleted else "member", age)

    def tick(self) -> None: ...

    def finish(self) -> None: ...


def _of_partitions(offsets: PlaceOffsets) -> Offsets:
    return {Partition(number): Offset(offset) for (_, number), offset in offsets.items()}


def _decode_member(value: bytes | None) -> MemberEmbedding:
    """Raises BadRecord."""
    embedding = read_embedding("member", value)
    assert isinstance(embedding, MemberEmbedding)
    return embedding
