"""Topics on the real broker."""

from contextlib import closing

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import ConfigResource, ResourceType

from schemas import topics
from schemas.ids import Partition
from schemas.topics import TopicSpec
from streams.errors import KafkaRefused, TopicMismatch
from streams.kafka.clients import consumer_config, producer_config
from streams.kafka.closing_segments import close_segments
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_topic
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def settings(broker: RunningBroker, **over: object) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": broker.bootstrap_servers, "partitions": 2, **over})


def config_of(broker: RunningBroker, topic: str) -> dict[str, str | None]:
    (future,) = broker.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(20).items()}


def test_each_topic_has_the_cleanup_policy_of_what_it_carries(clean_topics: RunningBroker) -> None:
    ensure_topics(settings(clean_topics), topics.core_topics())
    names = (topics.POSTS, topics.ACTIVITY_BY_POST, topics.POST_CONTEXTS)
    configs = {name: config_of(clean_topics, name) for name in names}
    assert {name: config["cleanup.policy"] for name, config in configs.items()} == {
        topics.POSTS: "delete",
        topics.ACTIVITY_BY_POST: "delete",
        topics.POST_CONTEXTS: "compact",
    }
    assert configs[topics.POSTS]["retention.ms"] == str(30 * 86_400_000)


@pytest.mark.parametrize("erase_within_s", [60, 86_400, 10 * 86_400])
def test_erased_data_is_gone_from_the_topics_in_time(clean_topics: RunningBroker, erase_within_s: int) -> None:
    """And a reader that was away for as long as that has still read the tombstone before it is gone."""
    ensure_topics(settings(clean_topics, erase_within_s=erase_within_s), topics.core_topics())
    ways = {
        "hops": ("segment.ms", "retention.ms", "file.delete.delay.ms"),
        "state": ("max.compaction.lag.ms", "file.delete.delay.ms"),
    }
    for spec in topics.core_topics():
        if spec.carries in ways:
            config = config_of(clean_topics, spec.name)
            took_ms = sum(int(config[name] or 0) for name in ways[spec.carries])
            assert took_ms < erase_within_s * 1000, spec.name
            if spec.carries == "state":
                assert int(config["delete.retention.ms"] or 0) >= erase_within_s * 1000, spec.name


def test_asking_again_changes_only_what_the_settings_changed(clean_topics: RunningBroker) -> None:
    specs = topics.core_topics()
    ensure_topics(settings(clean_topics), specs)
    ensure_topics(settings(clean_topics), specs)
    ensure_topics(settings(clean_topics, inputs_retention_s=7_200), specs)
    # The broker hears of it from its controller, a moment later.
    until(lambda: config_of(clean_topics, topics.POSTS)["retention.ms"] == "7200000", "the new retention")
    assert config_of(clean_topics, topics.ACTIVITY_BY_POST)["retention.ms"] == str(86_400_000 * 3 // 4)


def test_another_number_of_partitions_is_a_clear_error(clean_topics: RunningBroker) -> None:
    ensure_topics(settings(clean_topics), [TopicSpec("t", "events")])
    with pytest.raises(TopicMismatch, match=r"t has 2 partitions and kafka\.partitions is 3"):
        ensure_topics(settings(clean_topics, partitions=3), [TopicSpec("t", "events")])


def test_a_record_of_one_megabyte_and_more_fits(clean_topics: RunningBroker) -> None:
    kafka = settings(clean_topics)
    ensure_topics(kafka, [TopicSpec("t", "state")])
    failures: list[object] = []
    producer = Producer(producer_config(kafka, **{"compression.type": "none"}))
    producer.produce("t", b"x" * 5_000_000, b"k", on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(20) == 0
    assert failures == [None]


def test_producers_are_idempotent() -> None:
    """So what a producer sends again after an error arrives once and in order."""
    assert producer_config(KafkaSettings(bootstrap_servers="b"))["enable.idempotence"] is True


def test_options_of_the_settings_win_over_our_defaults_and_not_over_a_callers_needs() -> None:
    options = {"session.timeout.ms": "9000", "enable.partition.eof": "false"}
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "b", "options": options})
    config = consumer_config(kafka, "g", **{"enable.partition.eof": True})
    assert (config["session.timeout.ms"], config["enable.partition.eof"]) == ("9000", True)
    with pytest.raises(KafkaRefused, match="no broker is named"):
        consumer_config(KafkaSettings(), "g")


def test_segments_of_quiet_topics_are_closed_and_no_reader_notices(clean_topics: RunningBroker) -> None:
    kafka = settings(clean_topics, erase_within_s=10)
    specs = [TopicSpec("quiet", "state"), TopicSpec("events", "events")]
    ensure_topics(kafka, specs)
    producer = Producer(producer_config(kafka))
    for topic in ("quiet", "events"):
        producer.produce(topic, b"old", b"k", partition=0)
    producer.flush(20)
    segments = clean_topics.folder / "log" / "quiet-0"
    close_segments(kafka, specs, "closing")
    assert len(list(segments.glob("*.log"))) == 1, "it is too young"

    def closed() -> bool:
        close_segments(kafka, specs, "closing")
        return len(list(segments.glob("*.log"))) > 1

    until(closed, "the segment to be closed", 20, every_s=1)
    with closing(OffsetReader(kafka)) as reader:
        assert [message.value() for message in scan_topic(kafka, reader, "quiet")] == [b"old"]
        assert reader.ends([Place("events", Partition(0))]) == {Place("events", Partition(0)): 1}
