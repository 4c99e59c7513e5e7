"""The trending stage, in a process of its own, on the real broker."""

import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas import topics
from schemas.ids import Partition
from schemas.topics import TopicSpec
from schemas.trending import TrendingList, decode_trending
from streams.errors import KafkaUnavailable
from streams.kafka.clients import consumer_config
from streams.kafka.commit_watch import CommitWatch
from streams.kafka.heartbeat import read_heartbeats
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from streams.trending.lists import last_lists
from streams.trending.scores import WEIGHTS
from streams.trending.stage import EXIT_STATUS
from tests.kit.data import events
from tests.kit.data.events import line
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import lag, until_no_lag, until_workers_share
from tests.kit.kafka.strange_headers import send_strange
from tests.kit.kafka.topics import Sender, all_places, read_topic
from tests.kit.running import child
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def activity(member: str, post: str, action: str) -> tuple[str, bytes]:
    return member, line(events.activity(member, post, action))


class Trending:
    def __init__(self, broker: RunningBroker, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        ensure_topics(self.kafka, [TopicSpec(topics.ACTIVITY, "events"), TopicSpec(topics.TRENDING, "state")])

    def send(self, *records: tuple[str, bytes | None], codec: str = "lz4") -> None:
        Sender(self.kafka, **{"compression.type": codec}).send(topics.ACTIVITY, records)

    def child(self, interval_s: float = 0.2) -> AbstractContextManager[subprocess.Popen[str]]:
        return child("tests.kit.children.trending_stage", *self._arguments(interval_s))

    def broken_child(self) -> AbstractContextManager[subprocess.Popen[str]]:
        return child("tests.kit.children.trending_stage", *self._arguments(0.2), "broken")

    def _arguments(self, interval_s: float) -> tuple[str, ...]:
        return str(self.kafka.bootstrap_servers), str(interval_s), str(self.data_dir)

    def owned(self, *workers: subprocess.Popen[str]) -> list[Place]:
        """By what each says, one after the other."""
        heartbeats = [read_heartbeats(self.data_dir, str(worker.pid))["loop"] for worker in workers]
        return sorted(place for heartbeat in heartbeats for place in heartbeat.owned)

    def until_members(self, number: int) -> None:
        until_workers_share(self.kafka, topics.TRENDING_GROUP, number)

    def lists(self) -> dict[int, TrendingList]:
        """The newest list of each partition, as the retriever sees them."""
        lists = [decode_trending(message.value() or b"") for message in read_topic(self.kafka, topics.TRENDING)]
        return {trending.partition: trending for trending in sorted(lists, key=lambda trending: trending.as_of_us)}

    def scores(self) -> dict[str, float]:
        """Of all partitions, added up."""
        total: dict[str, float] = {}
        for each in self.lists().values():
            for entry in each.entries:
                total[entry.post_id] = total.get(entry.post_id, 0.0) + entry.score
        return total

    def until_no_lag(self) -> None:
        until_no_lag(self.kafka, topics.TRENDING_GROUP, [topics.ACTIVITY])


@pytest.fixture
def trending(clean_topics: RunningBroker, tmp_path: Path) -> Trending:
    return Trending(clean_topics, tmp_path)


def test_an_error_in_the_agent_ends_the_process_and_commits_nothing(trending: Trending) -> None:
    trending.send(activity("m", "p", "like"))
    with trending.broken_child() as process:
        assert process.wait(40) == EXIT_STATUS
    assert lag(trending.kafka, topics.TRENDING_GROUP, [topics.ACTIVITY]) == 1


def test_lists_that_are_missing_or_unreadable_are_started_anew(trending: Trending) -> None:
    until(lambda: known(lambda: last_lists(trending.kafka, [Partition(0)])), "the new topic to have its leaders")
    assert last_lists(trending.kafka, [Partition(0), Partition(1)]) == []
    Sender(trending.kafka).send(topics.TRENDING, [("0", b"garbage")])
    assert last_lists(trending.kafka, [Partition(n) for n in range(4)]) == []


def test_the_watch_sees_a_group_that_stands_still(trending: Trending) -> None:
    watch = CommitWatch(trending.kafka, topics.TRENDING_GROUP, looks=2)
    everything = [Place(topics.ACTIVITY, Partition(n)) for n in range(4)]

    def looks(number: int) -> list[list[Place]]:
        return [watch.stalled(everything) for _ in range(number)]

    with closing(watch):
        until(lambda: known(lambda: watch.stalled(everything)), "the broker to know group and topic")
        assert looks(4) == [[]] * 4, "nothing to read"

        # All of a key's records in one partition, and the control record of their transaction behind them.
        Sender(trending.kafka, "trending-test").send(topics.ACTIVITY, [activity("m", "p", "view")] * 3)
        first, second, third = looks(3)
        assert first == second == [], "what has only just come is no stall, however long nothing came before"
        (place,) = third
        commit(trending.kafka, place.partition, 2)
        assert looks(3) == [[], [], [place]]
        commit(trending.kafka, place.partition, 3)
        assert looks(4) == [[]] * 4, "a control record alone is nothing to read"


def known(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except KafkaUnavailable:
        return False
    return True


def commit(kafka: KafkaSettings, partition: Partition, offset: int) -> None:
    consumer = Consumer(consumer_config(kafka, topics.TRENDING_GROUP))
    consumer.commit(offsets=[TopicPartition(topics.ACTIVITY, partition, offset)], asynchronous=False)
    consumer.close()


def test_lists_of_all_partitions_and_a_restart_that_goes_on(trending: Trending) -> None:
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        trending.send(*(activity(f"m{n}", "liked", "like") for n in range(4)), codec=codec)
    trending.send(*(activity(f"m{n}", "seen", "view") for n in range(20)))
    trending.send(("m", b"garbage"), ("m", None), activity("m", "hidden", "hide"))
    with trending.child() as process:
        trending.until_no_lag()
        until(lambda: len(trending.scores()) == 2, "the lists to be written")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert trending.scores() == pytest.approx({"liked": 20 * WEIGHTS["like"], "seen": 20 * WEIGHTS["view"]})
    for message in read_topic(trending.kafka, topics.TRENDING):
        assert message.key() == str(message.partition()).encode()

    trending.send(activity("m0", "liked", "like"))
    with trending.child() as process:
        trending.until_no_lag()
        until(lambda: trending.scores()["liked"] > 20.5 * WEIGHTS["like"], "the next like to be counted")
        process.kill()
    trending.send(*(activity(f"m{n}", "late", "share") for n in range(20)))
    with trending.child() as process:
        until(lambda: trending.scores().get("late", 0) > 19 * WEIGHTS["share"], "the worker after a kill to go on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert trending.scores()["liked"] > 19 * WEIGHTS["like"]
    assert lag(trending.kafka, topics.TRENDING_GROUP, [topics.ACTIVITY]) == 0


def test_a_header_that_cannot_be_read_holds_nobody_up(trending: Trending) -> None:
    """Also at the end of a partition: what is committed goes past it."""
    trending.send(activity("m", "before", "like"))
    send_strange(trending.kafka, topics.ACTIVITY, [activity("m", "strange", "like")])
    trending.send(activity("m", "after", "like"))
    send_strange(trending.kafka, topics.ACTIVITY, [activity("m", "strange", "like")])
    with trending.child():
        trending.until_no_lag()
        until(lambda: {"before", "after"} <= trending.scores().keys(), "the others to be counted")


def test_a_second_worker_joins_and_leaves(trending: Trending) -> None:
    def likes(post_id: str) -> None:
        trending.send(*(activity(f"m{n}", post_id, "like") for n in range(20)))
        trending.until_no_lag()

    with trending.child() as first:
        trending.until_members(1)
        likes("one")
        with trending.child() as second:
            trending.until_members(2)
            everything = sorted(all_places(trending.kafka, topics.ACTIVITY))
            until(lambda: trending.owned(first, second) == everything, "each to say what is its own")
            likes("two")
            second.send_signal(signal.SIGTERM)
            assert second.wait(20) == 0
        trending.until_members(1)
        likes("one again")
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
    assert trending.scores() == pytest.approx(dict.fromkeys(("one", "two", "one again"), 20 * WEIGHTS["like"]), rel=0.1)
