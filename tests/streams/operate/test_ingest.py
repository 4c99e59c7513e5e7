"""Events are sent once and in order, at the given pace, and through an outage."""

import threading
import time
from collections import defaultdict

import pytest

from schemas import topics
from streams.errors import KafkaRefused, KafkaUnavailable, NotDelivered
from streams.kafka.topics import ensure_topics
from streams.operate.event_files import InputEvent
from streams.operate.ingest import EventSender, check_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import read_topic

pytestmark = pytest.mark.broker


def settings(broker: RunningBroker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap_servers, partitions=2)


def posts(num: int) -> list[InputEvent]:
    return [InputEvent(topics.POSTS, b"p%d" % (i % 7), b"%d" % i) for i in range(num)]


def test_every_event_arrives_once_and_in_the_order_of_its_key(clean_topics: RunningBroker) -> None:
    kafka = settings(clean_topics)
    ensure_topics(kafka, topics.core_topics())
    with EventSender(kafka) as sender:
        sender.send(posts(3000))
    values: dict[bytes | None, list[int]] = defaultdict(list)
    for record in read_topic(kafka, topics.POSTS):
        values[record.key()].append(int(record.value() or b""))
    assert all(of_key == sorted(of_key) for of_key in values.values())
    assert sorted(value for of_key in values.values() for value in of_key) == list(range(3000))


def test_the_pace_is_kept(clean_topics: RunningBroker) -> None:
    kafka = settings(clean_topics)
    ensure_topics(kafka, topics.core_topics())
    sent_at_s: list[float] = []
    with EventSender(kafka) as sender:
        start_s = time.monotonic()
        sender.send(posts(21), rate=40, sent=lambda: sent_at_s.append(time.monotonic() - start_s))
    # Those that are closer together than a tenth of a second go together.
    assert all(at_s >= number / 40 - 0.1 for number, at_s in enumerate(sent_at_s))


def test_a_missing_topic_is_named_before_anything_is_sent(clean_topics: RunningBroker) -> None:
    with pytest.raises(KafkaRefused, match="the topic posts does not exist"):
        check_topics(settings(clean_topics), 10)


def test_events_that_the_broker_refuses_are_counted(clean_topics: RunningBroker) -> None:
    kafka = settings(clean_topics)
    ensure_topics(kafka, [topics.TopicSpec(topics.POSTS, "events")])
    too_large = InputEvent(topics.POSTS, b"p", b"x" * (9 * 1024 * 1024))
    with pytest.raises(KafkaRefused), EventSender(kafka) as sender:
        sender.send([too_large])
    nowhere = InputEvent("no-such-topic", b"p", b"x")
    sender = EventSender(kafka, options={"topic.metadata.propagation.max.ms": 100})
    sender.send([nowhere, *posts(2)])
    with pytest.raises(NotDelivered, match="1 of 3 events were refused"):
        sender.close()


def test_no_answer_is_an_outage() -> None:
    with pytest.raises(KafkaUnavailable):
        check_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 0.5)


def test_an_outage_is_waited_out(fresh_broker: RunningBroker) -> None:
    kafka = settings(fresh_broker)
    ensure_topics(kafka, topics.core_topics())
    noticed = threading.Event()
    fresh_broker.stop()
    with EventSender(kafka, on_outage=noticed.set) as sender:
        thread = threading.Thread(target=lambda: (sender.send(posts(500)), sender.close()))
        thread.start()
        assert noticed.wait(20)
        fresh_broker.start()
        thread.join(60)
        assert not thread.is_alive(), "the sender must go on when the broker is back"
    assert len(read_topic(kafka, topics.POSTS)) == 500
