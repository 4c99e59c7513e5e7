"""Creates the topics, with the right way of forgetting for what each one carries.

Asking again changes nothing, except that a retention that the settings have changed is brought up to date.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from schemas.topics import TopicSpec
from streams.errors import KafkaUnavailable, TopicMismatch
from streams.kafka.clients import MAX_RECORD_BYTES, admin, kafka_errors
from streams.settings import KafkaSettings

_WEEK_MS: Final = 7 * 24 * 3600 * 1000
_DELETE_DELAY_MS: Final = 60_000
"""Kafka's own: so long it keeps the file of a deleted segment."""
_LISTS_SEGMENT_BYTES: Final = 4 * 1024 * 1024
_CALL_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.05

TopicConfig = dict[str, str]


def topic_config(kafka: KafkaSettings, spec: TopicSpec) -> TopicConfig:
    """Events and hops are deleted after a time, state is compacted. What was erased is gone from hops and state within
    `erase_within_s`, with an eighth of it for the broker's own work."""
    erase_ms = kafka.erase_within_s * 1000
    config = {
        # Some room for the batch's own header and for record headers.
        "max.message.bytes": str(MAX_RECORD_BYTES + 64 * 1024),
        "min.insync.replicas": str(max(1, min(2, kafka.replication - 1))),
    }
    if spec.carries == "lists":
        # Over a gigabyte a day is written; only closed segments are compacted.
        return {**config, "cleanup.policy": "compact", "segment.bytes": str(_LISTS_SEGMENT_BYTES)}
    if spec.carries == "events":
        return {**config, **_deleted_after(kafka.inputs_retention_s * 1000, kafka.inputs_retention_s * 1000 // 4)}
    config["file.delete.delay.ms"] = str(min(_DELETE_DELAY_MS, erase_ms // 16))
    if spec.carries == "hops":
        return {**config, **_deleted_after(erase_ms * 3 // 4, erase_ms // 8)}
    # Also closes the segment that is written to, with the first record after that time: see `close_segments`.
    lags = {"max.compaction.lag.ms": str(erase_ms // 2), "delete.retention.ms": str(erase_ms)}
    return {**config, **lags, "cleanup.policy": "compact"}


def _deleted_after(kept_ms: int, segment_ms: int) -> TopicConfig:
    """Only whole segments are deleted: one must be closed long before its time is up."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(kept_ms),
        "segment.ms": str(min(_WEEK_MS, segment_ms)),
    }


def ensure_topics(kafka: KafkaSettings, specs: Iterable[TopicSpec], timeout_s: float = 30.0) -> None:
    """Returns when all of them exist and every partition has a leader. Raises TopicMismatch, KafkaRefused, or
    KafkaUnavailable when the time is up."""
    wanted = {spec.name: topic_config(kafka, spec) for spec in specs}
    deadline = time.monotonic() + timeout_s
    client = admin(kafka)
    with kafka_errors():
        try:
            found = _found(client, wanted, timeout_s)
        finally:
            # Says what it heard meanwhile, such as that the password is wrong.
            client.poll(0)
        _check_partitions(kafka, found)
        _create(client, kafka, {name: config for name, config in wanted.items() if name not in found})
        _bring_up_to_date(client, {name: config for name, config in wanted.items() if name in found})
        _wait_until(lambda: _all_led(client, wanted), deadline)
        _check_partitions(kafka, _found(client, wanted, _CALL_TIMEOUT_S))


def _found(client: AdminClient, names: Iterable[str], timeout_s: float) -> dict[str, int]:
    """Topics that exist, with their number of partitions."""
    known = client.list_topics(timeout=timeout_s).topics
    return {name: len(known[name].partitions) for name in names if name in known and known[name].error is None}


def _check_partitions(kafka: KafkaSettings, found: Mapping[str, int]) -> None:
    for name, number in found.items():
        if number != kafka.partitions:
            raise TopicMismatch(name, number, kafka.partitions)


def _create(client: AdminClient, kafka: KafkaSettings, missing: Mapping[str, TopicConfig]) -> None:
    if not missing:
        return
    topics = [NewTopic(name, kafka.partitions, kafka.replication, config=config) for name, config in missing.items()]
    for future in client.create_topics(topics, operation_timeout=_CALL_TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as error:
            # Somebody else was quicker.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _bring_up_to_date(client: AdminClient, existing: Mapping[str, TopicConfig]) -> None:
    if not existing:
        return
    asked = client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in existing])
    changes = []
    for resource, future in asked.items():
        now: Mapping[str, Any] = future.result()
        differs = {key: value for key, value in existing[resource.name].items() if now[key].value != value}
        if differs:
            entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in differs.items()]
            changes.append(ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries))
    if changes:
        for future in client.incremental_alter_configs(changes).values():
            future.result()


def _all_led(client: AdminClient, names: Iterable[str]) -> bool:
    known = client.list_topics(timeout=_CALL_TIMEOUT_S).topics
    return all(
        name in known and known[name].partitions and all(p.leader >= 0 for p in known[name].partitions.values())
        for name in names
    )


def _wait_until(holds: Callable[[], bool], deadline: float) -> None:
    while not holds():
        if time.monotonic() > deadline:
            raise KafkaUnavailable("the topics were created and have no leader yet; is the broker up?")
        time.sleep(_PAUSE_S)
