"""Makes aiokafka, Faust's Kafka client, commit metadata with its offsets. Faust itself commits none."""

from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer

from schemas.ids import Partition
from streams.kafka.records import Place

Metadata = Callable[[Place], str]
"""Gives the metadata of one partition. Called in the thread of Faust's consumer."""


def commit_with_metadata(metadata: Metadata) -> None:
    """Changes aiokafka for the whole process."""
    original_commit = AIOKafkaConsumer.commit

    async def commit(consumer: Any, offsets: Mapping[Any, Any] | None = None) -> None:
        with_metadata = offsets and {
            at: offset._replace(metadata=metadata(Place(at.topic, Partition(at.partition))))
            for at, offset in offsets.items()
        }
        await original_commit(consumer, with_metadata)

    AIOKafkaConsumer.commit = commit
