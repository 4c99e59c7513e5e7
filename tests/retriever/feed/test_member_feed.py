"""The member feed on a real broker: where it begins, what it takes, and what it does when records are gone."""

import math
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest

from indexer.tiers import Offsets
from retriever.feed.end_watch import EndWatch
from retriever.feed.follower import CONSUMER_OVERRIDES
from retriever.feed.member_feed import MemberFeed
from retriever.feed.member_store import MemberStore
from schemas import topics
from schemas.embeddings import MemberEmbedding, encode_embedding, pack_vector
from schemas.ids import MemberId, Offset, Partition
from streams.kafka.clients import new_consumer
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import DIMENSION, GENERATION, member_embedding, vectors
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender, delete_before
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

TOPIC = topics.member_embeddings(GENERATION)
WINDOW_S = 48 * 3600.0


class Feeding:
    """A member feed and its store on a broker, with a clock and an index stage that the test sets."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self.indexed: Offsets | None = {}
        self.ahead_s = 0.0
        self._sender = Sender(kafka)
        self._feeds = ExitStack()

    def close(self) -> None:
        self._feeds.close()

    def start(self, window_s: float = WINDOW_S) -> None:
        watch = EndWatch("the member feed", 30)
        self.store = MemberStore(100, DIMENSION, indexed=lambda: self.indexed or {}, feed_problem=watch.problem)
        self.feed = MemberFeed(
            lambda: new_consumer(self.kafka, "member-feed", **CONSUMER_OVERRIDES),
            GENERATION,
            self.store,
            watch,
            lambda: self.indexed,
            window_s=window_s,
        )
        self.feed.start()
        self._feeds.callback(self.feed.close)
        self.watch = watch

    def caught_up(self, window_s: float = WINDOW_S) -> None:
        self.start(window_s)
        self.until_caught_up()

    def until_caught_up(self) -> None:
        until(lambda: self.watch.problem() is None, "the feed to catch up")

    def send(self, *members: MemberEmbedding) -> None:
        """All keys of these tests are in the same partition."""
        self._sender.send(TOPIC, [("key", encode_embedding(member)) for member in members])

    def partition(self) -> Partition:
        """The one that the records are in."""
        (partition,) = (number for number, floor in self.store.floor().items() if floor)
        return partition

    def revision(self, member_id: str) -> int | None:
        member = self.store.find(MemberId(member_id)).member
        return None if member is None else member.revision


@pytest.fixture
def feeding(kafka: KafkaSettings) -> Iterator[Feeding]:
    feeding = Feeding(kafka)
    yield feeding
    feeding.close()


def test_it_begins_where_the_index_stage_is(feeding: Feeding) -> None:
    """Everything before is in the cold tier, and the topic may be huge."""
    feeding.send(member_embedding("a"), member_embedding("b"), member_embedding("c"))
    feeding.indexed = {Partition(number): Offset(2) for number in range(2)}
    feeding.caught_up()
    assert [feeding.revision(member) for member in "abc"] == [None, None, 1]
    assert feeding.store.floor()[feeding.partition()] == 2
    assert not feeding.store.find(MemberId("a")).is_sure
    figures = feeding.feed.figures()
    assert (figures.positions[feeding.partition()], figures.records_left, figures.skipped_records) == (3, 0, 0)
    feeding.send(member_embedding("d"))
    until(lambda: feeding.revision("d") == 1, "the next record")
    until(lambda: feeding.feed.figures().positions[feeding.partition()] == 4, "the feed to say so")


def test_it_waits_until_it_knows_where_the_index_stage_is(feeding: Feeding) -> None:
    feeding.send(member_embedding("a"))
    feeding.indexed = None
    feeding.start()
    until(lambda: feeding.watch.problem() is not None, "the start")
    assert feeding.store.floor() == {}
    feeding.indexed = {}
    feeding.until_caught_up()
    assert feeding.revision("a") == 1


def test_an_index_stage_that_is_at_the_start_makes_it_read_all(feeding: Feeding) -> None:
    feeding.send(member_embedding("a"))
    feeding.caught_up()
    assert feeding.revision("a") == 1
    assert feeding.store.find(MemberId("z")).is_sure, "nobody else was ever written"


def test_with_an_endless_window_it_reads_all(feeding: Feeding) -> None:
    feeding.send(member_embedding("a"))
    feeding.indexed = {Partition(number): Offset(1) for number in range(2)}
    feeding.caught_up(math.inf)
    assert feeding.revision("a") == 1
    assert set(feeding.store.floor().values()) == {0}


def test_a_delete_is_taken_at_once(feeding: Feeding) -> None:
    feeding.caught_up()
    feeding.send(member_embedding("a", hidden=["p"]))
    until(lambda: feeding.revision("a") == 1, "the member")
    feeding.send(member_embedding("a", 2, deleted=True))
    until(lambda: feeding.revision("a") == 2, "the delete")
    member = feeding.store.find(MemberId("a")).member
    assert member is not None
    assert (member.deleted, member.vector, member.hidden) == (True, None, [])


def test_records_that_become_dead_letters_are_counted_and_left_out(feeding: Feeding) -> None:
    feeding.caught_up()
    whole = vectors(1)[0]
    wrong = [msgspec.structs.replace(member_embedding("a", 2), vector=pack_vector(vector)) for vector in (2 * whole,)]
    other = member_embedding("b", vector=vectors(1, dimension=DIMENSION * 2)[0])
    Sender(feeding.kafka).send(TOPIC, [("key", b"\xc1"), ("key", None)])
    feeding.send(member_embedding("a"), *wrong, other, member_embedding("c"))
    until(lambda: feeding.revision("c") == 1, "the last record")
    assert [feeding.revision(member) for member in "ab"] == [1, None]
    assert feeding.feed.figures().skipped_records == 4


def test_records_deleted_under_it_make_it_forget_all(
    feeding: Feeding, clean_topics: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record that deleted a member may be among those that it has not read."""
    feeding.caught_up()
    feeding.send(member_embedding("a"))
    until(lambda: feeding.revision("a") == 1, "the member")
    partition = next(number for (_, number), offset in feeding.feed._follower.offsets.items() if offset)
    monkeypatch.setattr(feeding.store, "apply", _unavailable)
    feeding.send(member_embedding("a", 2, deleted=True), member_embedding("b"))
    delete_before(clean_topics, TOPIC, partition, 2)
    feeding.indexed = {Partition(partition): Offset(3)}
    monkeypatch.undo()
    until(lambda: feeding.store.floor().get(Partition(partition)) == 3, "the feed to begin anew")
    assert [feeding.revision(member) for member in "ab"] == [None, None]
    until(lambda: feeding.watch.problem() is None, "the feed to catch up")


def _unavailable(_: object) -> int:
    raise OSError("the store takes nothing for a moment")
