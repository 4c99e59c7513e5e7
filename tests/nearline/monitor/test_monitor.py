"""The figures and the report of a monitor: on the real broker, and over HTTP while it is away."""

import http.client
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from nearline.ask.standing import standing
from nearline.errors import NotReady
from nearline.monitor.metrics import MonitorMetrics
from nearline.monitor.monitor import Monitor
from nearline.monitor.processes import ProcessWatch
from nearline.monitor.report import Report, ask_monitor
from nearline.monitor.server import served
from nearline.ports import free_ports
from schemas import topics
from schemas.ids import Partition
from streams.generations.state import Generations
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.data.generations import founded, generation_record
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit, commit_all
from tests.kit.kafka.topics import make_topics, produce, transaction
from tests.kit.running import frozen
from tests.kit.waiting import until

LIVE = Generations({GENERATION: generation_record(GENERATION, "serving", "blue")})
ENCODE = topics.encode_group(GENERATION)
CONTEXTS = topics.POST_CONTEXTS


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Served:
    """A monitor that looks when it is told to, served over HTTP."""

    def __init__(self, monitor: Monitor, port: int) -> None:
        self.monitor = monitor
        self._port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def look(self) -> None:
        self.monitor.look_at_broker()
        self.monitor.judge()

    def look_until_answered(self) -> None:
        def answered() -> bool:
            self.look()
            return self.series("nearline_monitor_broker_up") == {"": 1}

        until(answered, "the broker to answer", 60)

    def get(self, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def series(self, name: str) -> dict[str, float]:
        """By labels."""
        lines = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return {labels: float(value) for labels, value in lines}

    def of_group(self, name: str, group: str, topic: str, partition: int = 0) -> float:
        return self.series(name)[f'{{consumergroup="{group}",partition="{partition}",topic="{topic}"}}']

    def lag(self, group: str, topic: str, partition: int = 0) -> tuple[float, float]:
        """In records and seconds."""
        names = ("kafka_consumergroup_lag", "kafka_consumergroup_group_lag_seconds")
        records, seconds = (self.of_group(name, group, topic, partition) for name in names)
        return records, seconds

    def until_no_lag(self, group: str, topic: str, partition: int = 0) -> None:
        """A broker lets a record be read a moment after the mark of its transaction is there."""

        def has_none() -> bool:
            self.look()
            return self.lag(group, topic, partition) == (0, 0)

        until(has_none, f"{group} to have no lag in partition {partition} of {topic}")

    def ready(self) -> Report:
        status, body = self.get("/readyz")
        report = msgspec.json.decode(body, type=Report)
        assert status == (200 if report.ready else 503)
        return report


@contextmanager
def monitoring(
    kafka: KafkaSettings,
    folder: Path,
    state: Callable[[], Generations | None],
    clock: Callable[[], float],
    *,
    post_vectors: bool = False,
) -> Iterator[Served]:
    monitor = Monitor(kafka, state, ProcessWatch(folder), 60.0, clock, post_vectors=post_vectors)
    registry = CollectorRegistry()
    registry.register(MonitorMetrics(monitor))
    (port,) = free_ports(1)
    with served(monitor, registry, "127.0.0.1", port):
        yield Served(monitor, port)


@pytest.mark.broker
def test_lag_of_groups_that_are_down_on_the_real_broker(clean_topics: RunningBroker, tmp_path: Path) -> None:
    kafka, now_ms = make_topics(clean_topics), int(time.time() * 1000)
    states = [LIVE]
    produce(kafka, topics.POSTS, 0, 3, now_ms - 60_000)
    produce(kafka, topics.POSTS, 1, 2, now_ms - 90_000)
    commit(clean_topics, topics.CONTEXTS_GROUP, {(topics.POSTS, 0): 2})
    transaction(kafka, CONTEXTS, 0, commit=True)
    commit(clean_topics, ENCODE, {(CONTEXTS, 0): 1})
    place = Place(CONTEXTS, Partition(0))
    reader = OffsetReader(kafka)
    until(lambda: reader.ends([place]) == {place: 2}, "the end of the transaction to be in the partition")
    clock = Clock()
    with monitoring(kafka, tmp_path, lambda: states[-1], clock) as seen:
        seen.look_until_answered()
        generation = f'{{generation="{GENERATION}",place="blue",state="serving"}}'
        assert seen.series("nearline_generation_info") == {generation: 1}
        assert list(seen.series("nearline_build_info").values()) == [1]
        assert seen.lag("contexts", topics.POSTS) == (1, pytest.approx(60, abs=30))
        assert seen.lag("contexts", topics.POSTS, 1) == (2, pytest.approx(90, abs=30))
        seen.until_no_lag(ENCODE, CONTEXTS)  # a control record is no lag
        assert seen.series("kafka_topic_partition_current_offset")[f'{{partition="0",topic="{CONTEXTS}"}}'] == 2
        assert seen.ready().ready
        clock.now_s += 7.0
        seen.look()
        (standing,) = seen.ready().standing_still
        assert (standing.stage, standing.for_s) == ("contexts", 7.0)
        assert "and 3 records wait" in standing.sentence
        assert seen.series("nearline_standing_still_seconds")['{generation="",stage="contexts"}'] == 7.0
        commit(clean_topics, topics.CONTEXTS_GROUP, {(topics.POSTS, 0): 3, (topics.POSTS, 1): 2})
        seen.look()
        assert seen.ready().ready
        assert seen.lag("contexts", topics.POSTS) == (0, 0)
        _what_cannot_be_read_has_an_age(kafka, seen, clock)
        states.append(Generations())
        seen.look()
        assert GENERATION not in seen.get("/metrics")[1], "the series of a generation that is gone are gone"


def _what_cannot_be_read_has_an_age(kafka: KafkaSettings, seen: "Served", clock: "Clock") -> None:
    """At least since the look that saw it first."""
    producer = transaction(kafka, CONTEXTS, 1, commit=None)
    try:
        seen.look()
        assert seen.lag(ENCODE, CONTEXTS, 1) == (1, 0)
        clock.now_s += 9.0
        seen.look()
        assert seen.lag(ENCODE, CONTEXTS, 1) == (1, 9)
        report = seen.ready()
        assert report.oldest_age_s[ENCODE] == {CONTEXTS: 9.0}
        assert "behind an open transaction" in report.standing_still[0].sentence
    finally:
        producer.abort_transaction(20)


@pytest.mark.broker
def test_lag_of_post_vectors_is_measured_where_they_are_written_and_holds_up_nobody(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    kafka, clock, state = make_topics(clean_topics), Clock(), founded(GENERATION)
    group, source = topics.POST_VECTORS_GROUP, topics.post_embeddings(GENERATION)
    produce(kafka, source, 0, 3)
    commit_all(clean_topics, kafka, topics.index_group(GENERATION), source)
    with monitoring(kafka, tmp_path, lambda: state, clock, post_vectors=True) as seen:
        seen.look_until_answered()
        assert seen.lag(group, source)[0] == 3
        clock.now_s += 60.0
        seen.look()
        assert seen.lag(group, source)[0] == 3
        assert seen.ready().standing_still == []
    with monitoring(kafka, tmp_path, lambda: state, clock) as seen:
        seen.look_until_answered()
        assert group not in seen.get("/metrics")[1], "it is switched off"


@pytest.mark.broker
def test_while_the_broker_is_away_the_last_values_stay(fresh_broker: RunningBroker, tmp_path: Path) -> None:
    """A frozen broker is worse than one that is gone: nothing is refused."""
    kafka, clock = make_topics(fresh_broker), Clock()
    produce(kafka, topics.POSTS, 0, 3)
    process = fresh_broker.embedded.running()
    assert process is not None
    with monitoring(kafka, tmp_path, lambda: None, clock) as seen:
        seen.look_until_answered()
        age_s = seen.ready().oldest_age_s["contexts"][topics.POSTS]
        with frozen(process.pid):
            clock.now_s += 8.0
            seen.look()
            # Who asked the broker for these would wait for as long as it is frozen.
            report = seen.ready()
            assert seen.lag("contexts", topics.POSTS)[0] == 3
            assert seen.series("nearline_monitor_broker_up") == {"": 0}
            assert seen.series("nearline_monitor_look_age_seconds") == {"": 8}
            assert [standing.stage for standing in report.standing_still] == ["broker"]
            older_s = report.oldest_age_s["contexts"][topics.POSTS]
            assert older_s == pytest.approx(age_s + 8, abs=1), "nobody can have read it meanwhile"
        seen.look_until_answered()
        assert seen.ready().ready, "what stood still meanwhile is given its time again"


def test_before_the_broker_has_answered_it_says_so(tmp_path: Path) -> None:
    clock = Clock()
    with monitoring(KafkaSettings(bootstrap_servers=NO_BROKER), tmp_path, lambda: None, clock) as seen:
        seen.monitor.judge()
        report = seen.ready()
        assert (report.ready, report.broker_up, report.standing_still) == (False, False, [])
        assert seen.series("nearline_monitor_broker_up") == {"": 0}
        assert seen.get("/livez")[0] == 200
        clock.now_s += 31.0
        assert seen.get("/livez")[0] == 503, "nobody has judged for so long"
        seen.monitor.judge()
        assert [standing.stage for standing in seen.ready().standing_still] == ["broker"]
        assert seen.get("/else") == (404, '{"detail":"there are: /metrics, /livez, /readyz"}\n')


def test_a_status_takes_what_it_says(tmp_path: Path) -> None:
    clock = Clock()
    with monitoring(KafkaSettings(bootstrap_servers=NO_BROKER), tmp_path, lambda: None, clock) as seen:
        clock.now_s += 31.0
        seen.monitor.judge()
        told = standing(seen.url, [], 60.0)
    assert [sentence.partition(":")[0] for sentence in told.sentences] == ["broker has stood still for 31 s"]
    assert told.problems == ()


def test_what_is_no_monitor_is_said() -> None:
    with pytest.raises(NotReady, match=r"^the monitor does not answer at http://127\.0\.0\.1:1: "):
        ask_monitor("http://127.0.0.1:1", 1.0)
