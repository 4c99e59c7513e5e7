"""Embeddings that are written to the cold tier again on request: what was damaged or lost is whole again, nothing newer
is overwritten, and new records come first."""

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from indexer.tiers import IndexRecord
from schemas import topics
from schemas.embeddings import encode_embedding
from schemas.ids import Kind, Offset, PostId
from schemas.replays import ReplayRequest, encode_request
from streams.index.backoff import RetryBackoff
from streams.index.loop import IndexLoop
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.records import offset_of, place_of
from streams.operate.replay import ReplaySelection
from streams.settings import IndexSettings
from tests.kit.data.embeddings import member_embedding, post_embedding, vectors
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.stages import IndexLoopSetup
from tests.kit.kafka.topics import Sender, read_topic
from tests.kit.running import in_thread
from tests.kit.tiers import open_edge_tier
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def run_until_done(index: IndexLoopSetup, tier: JournalTier) -> None:
    with in_thread(index.loop(tier).run):
        index.until_no_lag()


def lose(journal: Path, lost: set[str]) -> None:
    """As a tier that was brought back from an older copy."""
    lines = [line for line in journal.read_text().splitlines() if line.split()[0] not in lost]
    journal.write_text("".join(f"{line}\n" for line in lines))


def test_what_the_tier_has_lost_is_written_again(index: IndexLoopSetup) -> None:
    index.send_posts(range(300))
    Sender(index.kafka).send(index.members, [("m1", encode_embedding(member_embedding("m1", 4)))])
    run_until_done(index, JournalTier(index.journal))
    before = index.durable()
    lose(index.journal, {"m1", *(f"p{n}" for n in range(0, 300, 3))})
    assert index.replay() == ({"post": 300, "member": 1}, [])
    tier = JournalTier(index.journal)
    run_until_done(index, tier)
    assert index.durable() == before
    assert (sorted(tier.received_again), tier.received) == (sorted(before), [])
    assert tier.position == index.ends_of_posts(), "requests do not count"


def test_only_what_was_asked_for_is_written_again(index: IndexLoopSetup) -> None:
    index.send_posts(range(300))
    run_until_done(index, JournalTier(index.journal))
    ids = {b"p3", b"p299", b"nobody"}
    assert index.replay("post", selection=ReplaySelection(ids=frozenset(ids))) == ({"post": 2}, [b"nobody"])
    tier = JournalTier(index.journal)
    run_until_done(index, tier)
    assert sorted(tier.received_again) == ["p299", "p3"]


def test_damaged_vectors_are_mended_and_newer_ones_stay(index: IndexLoopSetup, tmp_path: Path) -> None:
    """In a real tier."""
    index.send_posts(range(40))
    Sender(index.kafka).send(index.members, [("m1", encode_embedding(member_embedding("m1", 4, hidden=["p1"])))])
    with closing(open_edge_tier(tmp_path / "cold", index.generation)) as tier:
        loop = IndexLoop(index.kafka, IndexSettings(), tier, index.generation, 3600)
        with in_thread(loop.run):
            index.until_no_lag()
        for number, record in enumerate(read_topic(index.kafka, index.posts)):
            name, bad = (record.key() or b"").decode(), vectors(1, seed=1000 + number)[0]
            damaged = IndexRecord(post_embedding(name, vector=bad), place_of(record).partition, offset_of(record))
            tier.write("post", [damaged], again=True)
        newer = post_embedding("p7", 2)
        Sender(index.kafka).send(index.posts, [("p7", encode_embedding(newer))])
        index.replay()
        loop = IndexLoop(index.kafka, IndexSettings(), tier, index.generation, 3600)
        with in_thread(loop.run):
            index.until_no_lag()
        stored = tier.posts([PostId(f"p{n}") for n in range(40)], with_vectors=True)
        right = [newer if n == 7 else post_embedding(f"p{n}") for n in range(40)]
        assert [post and post.vector is not None and post.vector.tobytes() for post in stored] == [
            post.vector for post in right
        ]


class Gated(JournalTier):
    """Every write that repeats something needs leave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.leave = threading.Semaphore(0)
        self.waits = False

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        if again:
            self.waits = True
            assert self.leave.acquire(timeout=60)
        return super().write(kind, records, again=again)

    def goes_on_until(self, name: str) -> bool:
        if name not in self.received:
            self.leave.release()
        return name in self.received


def test_a_new_record_does_not_wait_for_those_that_are_written_again(index: IndexLoopSetup) -> None:
    index.send_posts(range(1000))
    run_until_done(index, JournalTier(index.journal))
    index.replay()
    tier = Gated(index.journal)
    with in_thread(index.loop(tier).run):
        until(lambda: tier.waits, "the first of them")
        index.send_posts(range(1000, 1001))
        until(lambda: tier.goes_on_until("p1000"), "the new one", every_s=0.1)
        assert len(tier.received_again) < 500
        tier.leave.release(1000)
        index.until_no_lag()
    assert len(set(tier.received_again)) == 1000


def test_a_tier_that_fails_is_waited_out(index: IndexLoopSetup) -> None:
    index.send_posts(range(200))
    run_until_done(index, JournalTier(index.journal))
    lose(index.journal, {f"p{n}" for n in range(100)})
    index.replay()
    tier = JournalTier(index.journal, fail_every=3)
    run_until_done(index, tier)
    assert len(index.durable()) == 200


def test_what_cannot_be_read_or_written_stands_alone(index: IndexLoopSetup) -> None:
    index.send_posts(range(20))
    run_until_done(index, JournalTier(index.journal))
    requests = topics.replay_requests("index", "post", index.generation)
    other = encode_request(ReplayRequest(Offset(0), Offset(1)))
    Sender(index.kafka).send(requests, [("garbage", b"{"), ("another key", other)])
    index.replay()
    tier = JournalTier(index.journal, refused=frozenset({"p3"}))
    run_until_done(index, tier)
    assert sorted(tier.received_again) == sorted(f"p{n}" for n in range(20) if n != 3)
    letters = read_topic(index.kafka, topics.DEAD_LETTERS)
    assert sorted(letter.key() or b"" for letter in letters) == [b"garbage", b"p3"]


def test_crashes_lose_nothing(index: IndexLoopSetup) -> None:
    index.send_posts(range(400))
    run_until_done(index, JournalTier(index.journal))
    before = index.durable()
    lose(index.journal, {f"p{n}" for n in range(1, 400)})
    index.replay()
    for place in ("index.indexed:2", "index.flushed:2", "index.dead-lettered:2", "index.stored:2", "index.indexed:3"):
        with index.child(place) as process:
            assert process.wait(60) == EXIT_STATUS
    with index.child() as process:
        until(lambda: len(index.durable()) > 250, "more than half of it", every_s=0.1)
        process.kill()
    run_until_done(index, JournalTier(index.journal))
    assert index.durable() == before


def test_requests_are_left_paused_after_an_outage(index: IndexLoopSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer of the records never reads them, also not after all its partitions were paused."""
    monkeypatch.setattr(RetryBackoff.__init__, "__defaults__", (0.0,))
    index.send_posts(range(100))
    tier = JournalTier(index.journal, fail_every=1)
    with in_thread(index.loop(tier).run):
        until(lambda: tier.calls >= 4, "four tries against a tier that is away")
        tier._fail_every = 0
        index.until_no_lag()
        index.replay()
        index.until_no_lag()
    assert len(set(tier.received_again)) == 100
