"""The index loop on the real broker."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Semaphore

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from schemas import stages, topics
from schemas.embeddings import encode_embedding
from schemas.ids import Partition
from streams.errors import KafkaUnavailable
from streams.index.backoff import RetryBackoff
from streams.index.metrics import IndexMetrics
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.sending import DeadLetterDelivery
from tests.kit.data.embeddings import member_embedding, post_embedding
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import IndexLoopSetup
from tests.kit.kafka.topics import Sender, all_places, transaction
from tests.kit.running import RecordedHeartbeat, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def test_posts_and_members_become_durable_and_lag_reaches_zero(index: IndexLoopSetup) -> None:
    index.send_posts(range(120), f"sender-{index.generation}")
    Sender(index.kafka).send(index.members, [("m1", encode_embedding(member_embedding("m1", 4)))])
    tier, heartbeat = JournalTier(index.journal), RecordedHeartbeat()
    with in_thread(index.loop(tier, heartbeat=heartbeat).run):
        # The control records at the end of a transaction are lag too.
        index.until_no_lag()
        heartbeat.until_turned()
        assert heartbeat.owned == all_places(index.kafka, *stages.index_reads(index.generation).topics)
    assert heartbeat.owned == frozenset(), "partitions that were given back are no longer owned"
    assert index.durable() == {**{f"p{n}": (1, False) for n in range(120)}, "m1": (4, False)}
    assert index.own_dead_letters() == []


def test_the_tier_is_told_how_far_the_posts_are_durable(index: IndexLoopSetup) -> None:
    """Transactions' control records and dead letters included, members not. A loop that is started again knows it from
    the committed offsets, before it has read anything."""
    index.send_posts(range(120), f"sender-{index.generation}")
    Sender(index.kafka).send(
        index.posts, [("garbage", b"\xc1"), ("refused", encode_embedding(post_embedding("refused")))]
    )
    Sender(index.kafka).send(index.members, [("m1", encode_embedding(member_embedding("m1")))] * 300)
    ends = index.ends_of_posts()
    for _ in range(2):
        tier = JournalTier(index.journal, refused=frozenset({"refused"}))
        with in_thread(index.loop(tier).run):
            until(lambda: tier.position == ends, "the position to reach the end")  # noqa: B023
            index.until_no_lag()
    assert tier.received == [], "the position of the second loop is what the first had committed"


def test_a_tier_that_has_lost_everything_is_filled_again_and_its_position_says_so(index: IndexLoopSetup) -> None:
    """Also if the loop is stopped before it has written the first record again."""
    index.send_posts(range(100))
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    index.journal.unlink()
    fails = JournalTier(index.journal, fail_every=1)
    with in_thread(index.loop(fails).run):
        until(lambda: fails.calls >= 2, "two tries against a tier that is away")
        assert set(fails.position.values()) == {0}
    # Something is in the tier again, so only what the loop has committed can tell where to go on.
    index.journal.write_text("other 1 False\n")
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert set(index.durable()) == {"other", *(f"p{n}" for n in range(100))}


def test_a_tier_that_is_empty_because_only_control_records_were_read_has_lost_nothing(index: IndexLoopSetup) -> None:
    """Nobody is alarmed. The record before is of a transaction that was aborted."""
    transaction(index.kafka, index.posts, 0, commit=False)
    with capture_logs() as logs:
        for _ in range(2):
            tier = JournalTier(index.journal)
            with in_thread(index.loop(tier).run):
                until(lambda: tier.position.get(Partition(0)) == 2, "the control record to be read")  # noqa: B023
            assert tier.is_empty()
            assert tier.received == []
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def test_a_position_waits_for_what_the_tier_does_not_take(index: IndexLoopSetup) -> None:
    index.send_posts(range(100))
    tier = JournalTier(index.journal, fail_every=1)
    with in_thread(index.loop(tier).run):
        until(lambda: tier.calls >= 3, "three tries against a tier that is away")
        assert set(tier.position.values()) == {0}, "nothing is durable, and all partitions are known"
        tier._fail_every = 0
        until(lambda: tier.position == index.ends_of_posts(), "the position to reach the end")


def test_an_older_revision_after_a_newer_one_changes_nothing(index: IndexLoopSetup) -> None:
    sent = [post_embedding("p", 3), post_embedding("p", 5, deleted=True), post_embedding("p", 4)]
    Sender(index.kafka).send(index.posts, [("p", encode_embedding(embedding)) for embedding in sent])
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert index.durable() == {"p": (5, True)}


def test_impossible_records_stand_alone(index: IndexLoopSetup) -> None:
    good = [(f"p{n}", encode_embedding(post_embedding(f"p{n}"))) for n in range(40)]
    no_vector = encode_embedding(post_embedding("null-vector")).replace(b"null-vector", b"longer-vecto")
    whole = post_embedding("nan")
    not_a_number = msgspec.structs.replace(whole, vector=np.float32(np.nan).tobytes() + whole.vector[4:])
    refused = ("p-refused", encode_embedding(post_embedding("p-refused")))
    bad = [("garbage", b"\xc1"), ("nothing", None), ("cut", no_vector[:-3]), ("nan", encode_embedding(not_a_number))]
    Sender(index.kafka).send(index.posts, [*good[:20], *bad, refused, *good[20:]])
    tier = JournalTier(index.journal, refused=frozenset({"p-refused"}))
    with in_thread(index.loop(tier).run):
        index.until_no_lag()
    assert set(index.durable()) == {key for key, _ in good}
    letters = dict(index.own_dead_letters())
    assert set(letters) == {b"garbage", b"nothing", b"cut", b"nan", b"p-refused"}
    assert letters[b"p-refused"] == "p-refused has the wrong dimension"
    assert letters[b"nan"] == "vector: it is not of length one"
    assert all(letters.values())


def test_a_tier_that_fails_every_third_call_is_waited_out(index: IndexLoopSetup) -> None:
    index.send_posts(range(200))
    tier = JournalTier(index.journal, fail_every=3)
    with in_thread(index.loop(tier).run):
        index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(200)}
    assert index.own_dead_letters() == []


def test_a_long_outage_keeps_the_group_and_loses_nothing(
    index: IndexLoopSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryBackoff.__init__, "__defaults__", (0.0,))
    index.send_posts(range(100))
    tier = JournalTier(index.journal, fail_every=1)
    loop = index.loop(tier)
    with in_thread(loop.run):
        until(lambda: tier.calls >= 4, "four tries against a tier that is away")
        index.send_posts(range(100, 200))
        tier._fail_every = 0
        index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(200)}


@pytest.mark.parametrize("fail_every", [1, 2], ids=["of writes", "of flushes"])
def test_a_stop_during_an_outage_stores_nothing(index: IndexLoopSetup, fail_every: int) -> None:
    index.send_posts(range(10))
    tier = JournalTier(index.journal, fail_every=fail_every)
    with in_thread(index.loop(tier).run):
        until(lambda: tier.calls >= 2, "a second try")
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(10)}


def test_letters_that_are_not_taken_hold_the_offsets(index: IndexLoopSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Semaphore(0)

    def not_taken(*_: object) -> None:
        tries.release()
        raise KafkaUnavailable("injected: the broker takes no letters")

    Sender(index.kafka).send(index.posts, [("garbage", b"\xc1")])
    with monkeypatch.context() as away:
        away.setattr(DeadLetterDelivery, "deliver", not_taken)
        with in_thread(index.loop(JournalTier(index.journal)).run):
            assert all(tries.acquire(timeout=30) for _ in range(2)), "it is tried again"
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert [key for key, _ in index.own_dead_letters()] == [b"garbage"]


def test_freshness_counts_from_the_origin(index: IndexLoopSetup) -> None:
    origin = str(int((time.time() - 5) * 1000)).encode()
    posts = [(f"p{n}", encode_embedding(post_embedding(f"p{n}"))) for n in range(3)]
    Sender(index.kafka).send(index.posts, posts[:1], [(topics.ORIGIN_HEADER, origin)])
    Sender(index.kafka).send(index.posts, posts[1:2])
    Sender(index.kafka).send(index.posts, posts[2:], [(topics.ORIGIN_HEADER, b"soon")])
    loop = index.loop(JournalTier(index.journal))
    with in_thread(loop.run):
        index.until_no_lag()
    (sample,) = loop.freshness.recent()
    assert 5 <= sample < 40
    (count,) = loop.freshness_by_kind.counts().values()
    assert list(loop.freshness_by_kind.counts()) == ["post"]
    assert (count.at_most[-1], count.sum_s) == (1, sample)


def test_what_is_built_from_old_events_says_nothing_of_freshness(index: IndexLoopSetup) -> None:
    """They would be the freshness of the generation in its first minutes as the serving one."""
    origin, catches_up = [(topics.ORIGIN_HEADER, b"1")], Event()
    catches_up.set()
    loop = index.loop(JournalTier(index.journal), catches_up=catches_up.is_set)
    with in_thread(loop.run):
        Sender(index.kafka).send(index.posts, [("p1", encode_embedding(post_embedding("p1")))], origin)
        index.until_no_lag()
        catches_up.clear()
        Sender(index.kafka).send(index.posts, [("p2", encode_embedding(post_embedding("p2")))], origin)
        index.until_no_lag()
    (count,) = loop.freshness_by_kind.counts().values()
    assert (len(loop.freshness.recent()), count.at_most[-1]) == (1, 1)


def test_each_record_is_counted_by_what_became_of_it(index: IndexLoopSetup) -> None:
    """Once, however often it was tried; also those of a generation that is being built."""
    index.send_posts(range(20))
    Sender(index.kafka).send(index.posts, [("garbage", b"\xc1")])
    tier = JournalTier(index.journal, fail_every=3)
    tier.calls = 1  # so the first flush fails, after a write
    loop = index.loop(tier, catches_up=lambda: True)
    registry = CollectorRegistry()
    registry.register(IndexMetrics(loop, index.generation))
    with in_thread(loop.run):
        index.until_no_lag()
    counts = {
        outcome: registry.get_sample_value(
            "nearline_index_records_total", {"outcome": outcome, "generation": index.generation}
        )
        for outcome in ("indexed", "dead_letter")
    }
    assert counts == {"indexed": 20, "dead_letter": 1}


def test_tombstones_are_swept_now_and_then(index: IndexLoopSetup) -> None:
    """A sweep that takes minutes is no loop that stands still: the loop is at work, and says so."""
    tier, heartbeat = JournalTier(index.journal), RecordedHeartbeat()
    with in_thread(index.loop(tier, sweep_every_s=0.05, heartbeat=heartbeat).run):
        until(lambda: tier.swept >= 2, "two sweeps")
    before_each_and_within = 2 * tier.swept
    assert all(heartbeat.beats.acquire(blocking=False) for _ in range(before_each_and_within))


def test_two_loops_share_the_partitions_and_one_takes_over(index: IndexLoopSetup) -> None:
    first, second = JournalTier(index.journal), JournalTier(index.journal.with_name("second"))
    with in_thread(index.loop(second).run):
        with in_thread(index.loop(first).run):
            index.send_posts(range(100))
            index.until_no_lag()
        index.send_posts(range(100, 200))
        index.until_no_lag()
    assert first.revisions.keys() | second.revisions.keys() == {f"p{n}" for n in range(200)}


def test_sigterm_loses_nothing_and_repeats_nothing(index: IndexLoopSetup) -> None:
    index.send_posts(range(400))
    with index.child() as process:
        until(index.journal.exists, "the first flush", timeout_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    done = len(index.journal.read_text().splitlines())
    index.send_posts(range(400, 500))
    tier = JournalTier(index.journal)
    with in_thread(index.loop(tier).run):
        index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(500)}
    assert len(tier.received) == 500 - done


def test_kill_9_and_two_crashes_between_any_two_effects_lose_nothing(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    """The second on the first pass after the restart. All places at once, because the group of a dead process waits for
    it for a while."""
    places = ["index.indexed", "index.flushed", "index.dead-lettered", "index.stored", "killed"]
    lives = [IndexLoopSetup(clean_topics, tmp_path / str(number)) for number in range(len(places))]
    for index in lives:
        Sender(index.kafka).send(index.posts, [("garbage", b"\xc1")])
        index.send_posts(range(200))
    for passes in (2, 1):
        with ExitStack() as stack:
            children = [
                stack.enter_context(index.child(f"{place}:{passes}"))
                for index, place in zip(lives, places, strict=True)
            ]
            until(lives[-1].journal.exists, "the first flush", timeout_s=90)
            children[-1].kill()
            assert [process.wait(90) for process in children] == [EXIT_STATUS] * 4 + [-signal.SIGKILL]
    with ExitStack() as stack:
        for index in lives:
            stack.enter_context(in_thread(index.loop(JournalTier(index.journal)).run))
        for index in lives:
            index.until_no_lag()
    for index in lives:
        assert set(index.durable()) == {f"p{n}" for n in range(200)}
        # At least once: a letter may be there twice, and never not at all.
        assert {key for key, _ in index.own_dead_letters()} == {b"garbage"}


def test_a_crash_while_its_partitions_are_given_back_loses_nothing(clean_topics: RunningBroker, tmp_path: Path) -> None:
    """What was committed then is not read again."""
    index = IndexLoopSetup(clean_topics, tmp_path)
    for numbers in (range(100), range(100, 150)):
        index.send_posts(numbers)
        with index.child("index.committed:1") as process:
            until(lambda: len(_lines(index)) >= numbers.stop, "all of it to be flushed", timeout_s=60)  # noqa: B023
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == EXIT_STATUS
    index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(150)}


def _lines(index: IndexLoopSetup) -> list[str]:
    return index.journal.read_text().splitlines() if index.journal.exists() else []
