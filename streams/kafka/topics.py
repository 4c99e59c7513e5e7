"""Creates the topics, each with the retention or compaction that fits what it carries.

Can be repeated: topics that exist stay as they are, except for configuration that the settings have changed.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from schemas.topics import TopicSpec
from streams.errors import FixedTopicMismatch, KafkaUnavailable, TopicMismatch
from streams.kafka.clients import admin
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.records import MAX_RECORD_BYTES
from streams.settings import KafkaSettings

_WEEK_MS: Final = 7 * 24 * 3600 * 1000
_DELETE_DELAY_MS: Final = 60_000
"""Kafka's default: how long it keeps the file of a deleted segment."""
_LISTS_SEGMENT_BYTES: Final = 4 * 1024 * 1024
_CALL_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.05

TopicConfig = dict[str, str]


def topic_config(kafka: KafkaSettings, spec: TopicSpec) -> TopicConfig:
    """Events and hops are deleted after a time; state is compacted. Erased data is gone from hops and state within
    `erase_within_s`; an eighth of that time is left for the broker's own work."""
    erase_ms = kafka.erase_within_s * 1000
    config = {
        # The extra room is for the headers of the batch and of the record.
        "max.message.bytes": str(MAX_RECORD_BYTES + 64 * 1024),
        "min.insync.replicas": str(max(1, min(2, kafka.replication - 1))),
    }
    if spec.carries == "lists":
        # More than a gigabyte a day is written, and only closed segments are compacted: so segments are small.
        return {**config, "cleanup.policy": "compact", "segment.bytes": str(_LISTS_SEGMENT_BYTES)}
    if spec.carries == "recorded":
        return {**config, "cleanup.policy": "delete", "retention.ms": "-1", "segment.ms": str(_WEEK_MS)}
    if spec.carries == "events":
        return {**config, **_deleted_after(kafka.inputs_retention_s * 1000, kafka.inputs_retention_s * 1000 // 4)}
    config["file.delete.delay.ms"] = str(min(_DELETE_DELAY_MS, erase_ms // 16))
    if spec.carries == "hops":
        return {**config, **_deleted_after(erase_ms * 3 // 4, erase_ms // 8)}
    # The lag also makes the broker close the active segment, at the first record after that time: see `close_segments`.
    lags = {"max.compaction.lag.ms": str(erase_ms // 2), "delete.retention.ms": str(erase_ms)}
    return {**config, **lags, "cleanup.policy": "compact"}


def num_partitions(kafka: KafkaSettings, spec: TopicSpec) -> int:
    return spec.partitions or kafka.partitions


def _deleted_after(retention_ms: int, segment_ms: int) -> TopicConfig:
    """Kafka deletes only whole, closed segments. So a segment must be closed long before its records expire."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "segment.ms": str(min(_WEEK_MS, segment_ms)),
    }


def ensure_topics(kafka: KafkaSettings, specs: Iterable[TopicSpec], timeout_s: float = 30.0) -> None:
    """Returns once all of them exist and every partition has a leader. Raises TopicMismatch, KafkaRefused, or
    KafkaUnavailable when the time is up."""
    specs = list(specs)
    configs = {spec.name: topic_config(kafka, spec) for spec in specs}
    deadline = time.monotonic() + timeout_s
    client = admin(kafka)
    with kafka_errors():
        try:
            existing = _count_partitions(client, configs, timeout_s)
        finally:
            # Calls the client's error_cb, which logs a refused login.
            client.poll(0)
        _check_partitions(kafka, specs, existing)
        _create(client, kafka, [spec for spec in specs if spec.name not in existing])
        _update(client, {name: config for name, config in configs.items() if name in existing})
        _wait_for_leaders(client, configs, deadline)
        _check_partitions(kafka, specs, _count_partitions(client, configs, _CALL_TIMEOUT_S))


def existing(kafka: KafkaSettings, specs: Iterable[TopicSpec]) -> list[TopicSpec]:
    """Those that the broker has. Raises StreamsError."""
    client = admin(kafka)
    with kafka_errors():
        known = _count_partitions(client, [spec.name for spec in specs], _CALL_TIMEOUT_S)
    return [spec for spec in specs if spec.name in known]


def topic_id(kafka: KafkaSettings, name: str) -> str:
    """The id that the broker gave to the topic. One of the same name that is made later has another. Raises
    StreamsError."""
    client = admin(kafka)  # it must live until the answer is there
    with kafka_errors():
        described = client.describe_topics(TopicCollection([name]), request_timeout=_CALL_TIMEOUT_S)
        return str(described[name].result().topic_id)


def _count_partitions(client: AdminClient, names: Iterable[str], timeout_s: float) -> dict[str, int]:
    """The number of partitions of each topic that exists."""
    known = client.list_topics(timeout=timeout_s).topics
    return {name: len(known[name].partitions) for name in names if name in known and known[name].error is None}


def _check_partitions(kafka: KafkaSettings, specs: Iterable[TopicSpec], existing: Mapping[str, int]) -> None:
    for spec in specs:
        number = existing.get(spec.name)
        if number is None or number == num_partitions(kafka, spec):
            continue
        if spec.partitions is not None:
            raise FixedTopicMismatch(spec.name, number, spec.partitions)
        raise TopicMismatch(spec.name, number, kafka.partitions)


def _create(client: AdminClient, kafka: KafkaSettings, missing: Iterable[TopicSpec]) -> None:
    topics = [
        NewTopic(spec.name, num_partitions(kafka, spec), kafka.replication, config=topic_config(kafka, spec))
        for spec in missing
    ]
    if not topics:
        return
    for future in client.create_topics(topics, operation_timeout=_CALL_TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as error:
            # Another process may have created it meanwhile.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _update(client: AdminClient, configs: Mapping[str, TopicConfig]) -> None:
    """Sets what differs from the settings."""
    if not configs:
        return
    described = client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in configs])
    changes = []
    for resource, future in described.items():
        current: Mapping[str, Any] = future.result()
        changed = {key: value for key, value in configs[resource.name].items() if current[key].value != value}
        if changed:
            entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in changed.items()]
            changes.append(ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries))
    if changes:
        for future in client.incremental_alter_configs(changes).values():
            future.result()


def _wait_for_leaders(client: AdminClient, names: Iterable[str], deadline: float) -> None:
    while not _have_leaders(client, names):
        if time.monotonic() > deadline:
            raise KafkaUnavailable("the topics were created and have no leader yet; is the broker up?")
        time.sleep(_PAUSE_S)


def _have_leaders(client: AdminClient, names: Iterable[str]) -> bool:
    known = client.list_topics(timeout=_CALL_TIMEOUT_S).topics
    return all(
        name in known and known[name].partitions and all(p.leader >= 0 for p in known[name].partitions.values())
        for name in names
    )
