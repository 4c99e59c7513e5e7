"""Sends records with a header whose name is not UTF-8. Kafka accepts them, and clients in other languages send them."""

import asyncio
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streams.settings import KafkaSettings


class _Name(str):
    """A header name whose bytes are not UTF-8. Only aiokafka's record builder in Python calls `encode` on it."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


def send_strange(kafka: KafkaSettings, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
    builder = "DefaultRecordBatchBuilder"
    with (
        patch.object(message_accumulator, builder, _DefaultRecordBatchBuilderPy),
        patch.object(producer, builder, _DefaultRecordBatchBuilderPy),
    ):
        asyncio.run(_send(kafka, topic, records))


async def _send(kafka: KafkaSettings, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as sender:
        for key, value in records:
            await sender.send_and_wait(topic, value, key.encode(), headers=[(_Name("name"), b"1")])
