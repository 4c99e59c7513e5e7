"""Makes the broker close the segments of quiet topics, so that it can compact them.

Kafka never compacts the segment that is written to, and looks at its age only when something is appended: in a
partition that nothing is written to any more, what a delete should have taken out would stay for ever.
"""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import Producer

from schemas.topics import TopicSpec
from streams.errors import KafkaUnavailable
from streams.kafka.clients import kafka_errors, producer_config
from streams.settings import KafkaSettings

_CALL_S: Final = 20.0
_TRANSACTION_MS: Final = 10_000
"""Readers wait no longer where this process dies within."""


def close_segments(kafka: KafkaSettings, specs: Iterable[TopicSpec], transactional_id: str) -> None:
    """Appends to every partition of the topics that carry state what no reader of committed records sees: a transaction
    that is aborted. Segments that are old enough are closed by it. Raises StreamsError."""
    own = {"transactional.id": transactional_id, "transaction.timeout.ms": _TRANSACTION_MS}
    with kafka_errors():
        producer = Producer(producer_config(kafka, **own))
        producer.init_transactions(_CALL_S)
        producer.begin_transaction()
        for name in (spec.name for spec in specs if spec.carries == "state"):
            for partition in range(kafka.partitions):
                producer.produce(name, None, b"close", partition=partition)
        waiting = producer.flush(_CALL_S)
        producer.abort_transaction(_CALL_S)
    if waiting:
        raise KafkaUnavailable(f"{waiting} records that close segments were not taken within {_CALL_S:.0f} s")
