"""Makes the broker close the segments of quiet topics, so that it can compact them.

Kafka never compacts a partition's active segment, the one that is being written to, and checks its age only when
something is appended. In a partition that nobody writes to any more, records that a delete has replaced would stay
forever. Knows only the names of the topics.
"""

from collections.abc import Iterable
from typing import Final

from schemas.topics import TopicSpec
from streams.errors import KafkaUnavailable
from streams.kafka.clients import new_producer
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.topics import num_partitions
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_TRANSACTION_MS: Final = 10_000
"""If this process dies within the transaction, readers wait for at most this long."""


def close_segments(kafka: KafkaSettings, specs: Iterable[TopicSpec], transactional_id: str) -> None:
    """Appends a record to every partition of the topics that carry state, in a transaction that it aborts: no reader of
    committed records ever gets these records, but the broker closes segments that are old enough. Raises
    StreamsError."""
    overrides = {"transactional.id": transactional_id, "transaction.timeout.ms": _TRANSACTION_MS}
    producer = new_producer(kafka, **overrides)
    with kafka_errors():
        producer.init_transactions(_CALL_S)
        producer.begin_transaction()
        for spec in (spec for spec in specs if spec.carries == "state"):
            for partition in range(num_partitions(kafka, spec)):
                producer.produce(spec.name, None, b"close", partition=partition)
        num_waiting = producer.flush(_CALL_S)
        producer.abort_transaction(_CALL_S)
    if num_waiting:
        raise KafkaUnavailable(f"{num_waiting} records that close segments were not taken within {_CALL_S:.0f} s")
