"""Deletes what a retired generation, or a retired version of the contexts, has in Kafka: consumer groups and topics.

The groups first: as long as one has members, a process still works for it. The topics last: while they are there,
something may be left. Every step can be repeated.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.ids import ContextVersion, Generation
from schemas.stages import contexts_reads, encode_reads, index_reads
from schemas.topics import TopicSpec, context_topics, generation_topics
from streams.errors import KafkaUnavailable, StillFed
from streams.kafka.clients import admin
from streams.kafka.crash_points import crash_point
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_PAUSE_S: Final = 0.1
_GONE: Final = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART)


def delete_groups(kafka: KafkaSettings, generation: Generation, timeout_s: float) -> None:
    """Waits until the processes of the generation have left. Raises StillFed if they have not in time, StreamsError."""
    groups = [encode_reads(generation).group, index_reads(generation).group]
    if with_members := _delete_groups(kafka, groups, timeout_s):
        raise StillFed.of_generation(generation, with_members, timeout_s)


def delete_topics(kafka: KafkaSettings, generation: Generation) -> None:
    """Returns when the broker knows them no more. Raises StreamsError."""
    _delete_topics(kafka, generation_topics(generation))


def has_topics(kafka: KafkaSettings, version: ContextVersion) -> bool:
    """Whether anything may be left of this version of the contexts. Raises StreamsError."""
    with closing(OffsetReader(kafka, _CALL_S)) as reader:
        return bool(reader.places(spec.name for spec in context_topics(version)))


def delete_contexts(kafka: KafkaSettings, version: ContextVersion, timeout_s: float) -> None:
    """Group and topics of a retired version. Waits until its processes have left. Raises StillFed if they have not in
    time, StreamsError."""
    if with_members := _delete_groups(kafka, [contexts_reads(version).group], timeout_s):
        again = "nearline rebuild contexts --drop"
        raise StillFed(f"version {version} of the contexts", with_members, timeout_s, again)
    _delete_topics(kafka, context_topics(version))


def _delete_groups(kafka: KafkaSettings, groups: Sequence[str], timeout_s: float) -> list[str]:
    """Returns those that have members after all this time."""
    deadline = time.monotonic() + timeout_s
    with kafka_errors():
        client = admin(kafka)
        while with_members := [group for group in groups if not _delete_group(client, group)]:
            if time.monotonic() > deadline:
                return with_members
            time.sleep(_PAUSE_S)
    crash_point("generations.groups-deleted")
    return []


def _delete_topics(kafka: KafkaSettings, specs: Iterable[TopicSpec]) -> None:
    names = [spec.name for spec in specs]
    deadline = time.monotonic() + _CALL_S
    with kafka_errors():
        client = admin(kafka)
        for future in client.delete_topics(names, operation_timeout=_CALL_S).values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() not in _GONE:
                    raise
        while client.list_topics(timeout=_CALL_S).topics.keys() & set(names):
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"the broker has not deleted {' and '.join(names)} within {_CALL_S:.0f} s")
            time.sleep(_PAUSE_S)
    crash_point("generations.topics-deleted")


def _delete_group(client: AdminClient, group: str) -> bool:
    """False if it has members."""
    try:
        client.delete_consumer_groups([group], request_timeout=_CALL_S)[group].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.NON_EMPTY_GROUP:
            return False
        if error.args[0].code() not in _GONE:
            raise
    return True
