"""The hot feed when something goes wrong: records are gone, the broker is silent or dead, the tier fails or hangs, the
process starts again."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka import Consumer
from structlog.testing import capture_logs

from indexer.tiers import HotRecord, Offsets
from retriever.feed import offsets as feed_offsets
from retriever.feed.hot_feed import HotFeed
from retriever.feed.offsets import Place, PlaceOffsets
from retriever.reasons import Code, Reason
from streams.kafka.clients import admin
from tests.kit.hot_feeding import Feeding
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.retrievers import WINDOW_S, scored_post
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def test_a_topic_that_is_not_there_yet_is_waited_for(clean_topics: RunningBroker) -> None:
    feeding = Feeding(clean_topics)
    try:
        with capture_logs() as logs:
            feed = feeding.start()
            until(lambda: bool(logs), "the feed to log what is missing")
        assert "Unknown topic" in logs[0]["error"]
        assert feed.problem == Reason(
            Code.HOT_CATCHING_UP, "the hot feed has not begun to read; the log of the retriever says why"
        )
        assert feed.progress().positions == {}
        feeding.create_topics()
        until(lambda: feed.problem is None, "the feed to catch up")
    finally:
        feeding.close()


def test_a_tier_that_fails_costs_no_record(feeding: Feeding) -> None:
    feed = feeding.caught_up()
    feeding.hot.fails = "apply"
    feeding.send(scored_post("a"), scored_post("b"), scored_post("c"))
    until(lambda: feeding.hot.failures > 1, "the feed to meet the failure, and once more")
    assert set(feed.progress().positions.values()) == {0}
    feeding.hot.fails = False
    feeding.until_live("a", "b", "c")


def test_records_deleted_under_it_make_it_begin_that_partition_anew(feeding: Feeding) -> None:
    """What it holds of that partition may be outdated: the record that deleted it may be gone."""
    feeding.send(scored_post("a"), partition=0)
    feeding.send(scored_post("z"), partition=1)
    feed = feeding.caught_up()
    feeding.hot.fails = "apply"
    feeding.send(scored_post("b"), partition=0)
    feeding.send(scored_post("c"), partition=1)
    feeding.delete_before(0, 2)
    feeding.send(scored_post("d"), partition=0)
    problems = _collected(lambda: feed.problem)
    floors: list[Offsets] = []
    feed.watch(lambda: floors.append(feeding.floor()))
    feeding.hot.fails = False
    feeding.until_live("c", "d", "z")
    assert feeding.floor() == {0: 2, 1: 0}
    assert floors[-1] == {0: 2, 1: 0}, "whoever keeps answers is told, after the tier"
    until(lambda: feed.problem is None, "the feed to catch up again")
    assert Code.HOT_CATCHING_UP in {problem.code for problem in problems() if problem is not None}


def assert_behind(feed: HotFeed, sentence_ends: str) -> None:
    problem = feed.problem
    assert problem is not None
    assert problem.code == Code.HOT_BEHIND
    assert problem.detail.startswith("the hot feed has been behind the topic for ")
    assert problem.detail.endswith(sentence_ends)


def _collected(ask: Callable[[], Reason | None]) -> Callable[[], list[Reason | None]]:
    """Asks again and again in a thread, until the result is called: that returns all answers."""
    answers: list[Reason | None] = []
    stop = Event()

    def run() -> None:
        while not stop.wait(0.01):
            answers.append(ask())

    thread = Thread(target=run, daemon=True)
    thread.start()

    def end() -> list[Reason | None]:
        stop.set()
        thread.join()
        return answers

    return end


def test_after_a_restart_it_goes_on_from_the_snapshot(feeding: Feeding, tmp_path: Path) -> None:
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("old"), age_s=WINDOW_S - 10, partition=0)
    feeding.send(scored_post("a"), scored_post("b"), partition=0)
    feeding.caught_up()
    feeding.next_process()
    feeding.send(scored_post("a", revision=2, deleted=True), scored_post("c"), partition=0)
    applied: list[str] = []
    apply = feeding.hot.tier.apply

    def recorded(batch: Sequence[HotRecord]) -> int:
        applied.extend(record.embedding.post_id for record in batch)
        return int(apply(batch))

    feeding.hot.tier.apply = recorded
    feeding.caught_up()
    feeding.now_s += 11
    feeding.until_live("b", "c")
    assert applied == ["a", "c"], "the topic was read on, not from the start"
    assert feeding.floor() == {0: 1, 1: 0}


def test_a_snapshot_whose_next_records_are_gone_is_not_trusted(feeding: Feeding, tmp_path: Path) -> None:
    """The record that deleted a post may be among them."""
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("a"), partition=0)
    feeding.send(scored_post("z"), partition=1)
    feeding.caught_up()
    feeding.next_process()
    feeding.send(scored_post("a", revision=2, deleted=True), scored_post("b"), partition=0)
    feeding.delete_before(0, 2)
    (snapshot,) = tmp_path.glob("*/hot.snapshot")
    before = snapshot.read_bytes()
    feeding.caught_up()
    assert feeding.live() == ["b", "z"]
    assert feeding.floor() == {0: 2, 1: 0}
    until(lambda: snapshot.exists() and snapshot.read_bytes() != before, "another snapshot, though none is due")


def test_a_topic_that_was_made_again_is_read_from_its_start(feeding: Feeding, tmp_path: Path) -> None:
    feeding.snapshots = tmp_path
    feeding.next_process()
    feeding.send(scored_post("a"), partition=0)
    feeding.caught_up()
    feeding.next_process()
    client = admin(feeding.kafka)
    client.delete_topics([feeding.topic])[feeding.topic].result(20)
    until(lambda: feeding.topic not in client.list_topics(timeout=20).topics, "the topic to be gone")
    feeding.create_topics()
    feeding.send(scored_post("b"), scored_post("c"), partition=0)
    feeding.caught_up()
    assert feeding.live() == ["b", "c"]


def test_it_outlives_the_broker(stoppable: Feeding, fresh_broker: RunningBroker) -> None:
    stoppable.send(scored_post("old"), age_s=WINDOW_S - 10, partition=0)
    stoppable.send(scored_post("a"), partition=0)
    feed = stoppable.caught_up()
    fresh_broker.kill()
    stoppable.now_s += 11
    stoppable.until_live("a")
    fresh_broker.start()
    stoppable.send(scored_post("b"))
    stoppable.until_live("a", "b")
    until(lambda: feed.problem is None, "the feed to follow again")


def test_a_broker_that_answers_no_more_is_noticed_by_the_clock(stoppable: Feeding, fresh_broker: RunningBroker) -> None:
    stoppable.stale_after_s = 2.5
    feed = stoppable.caught_up()
    process = fresh_broker.embedded.running()
    assert process is not None
    process.suspend()
    try:
        until(lambda: feed.problem is not None, "the feed to notice")
        assert_behind(feed, "it cannot read now")
    finally:
        process.resume()
    until(lambda: feed.problem is None, "the feed to follow again")


def test_a_tier_that_hangs_is_noticed_by_the_clock(feeding: Feeding) -> None:
    """The feed's thread is stuck in a call meanwhile."""
    feeding.stale_after_s = 2.5
    feed = feeding.caught_up()
    apply, goes_on = feeding.hot.tier.apply, Event()
    feeding.hot.tier.apply = lambda batch: (goes_on.wait(), apply(batch))
    try:
        feeding.send(scored_post("a"))
        until(lambda: feed.problem is not None, "the feed to notice")
        assert_behind(feed, "it cannot read now")
    finally:
        goes_on.set()
    until(lambda: feed.problem is None, "the feed to follow again")


def test_an_idle_topic_is_not_behind(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> None:
    feeding.stale_after_s = 2.5
    feeding.send(scored_post("a"))
    feed = feeding.caught_up()
    problems = _collected(lambda: feed.problem)
    asked: list[None] = []
    ends = feed_offsets.ends

    def counted(consumer: Consumer, places: Iterable[Place]) -> PlaceOffsets:
        asked.append(None)
        return ends(consumer, places)

    monkeypatch.setattr(feed_offsets, "ends", counted)
    until(lambda: len(asked) > 2 * feeding.stale_after_s, "twice the time after which it would be behind")
    assert set(problems()) == {None}
