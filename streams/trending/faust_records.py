"""Lets aiokafka, Faust's client, read past what it cannot parse: a header whose name is no UTF-8.

It would raise at that record for ever. What is behind it in its batch is left out too: trending counts approximately.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

log = structlog.get_logger(__name__)


class _Unreadable(NamedTuple):
    """Stands for the rest of a batch, at its last offset, so that what is committed moves on. No stage takes it for an
    event."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[()] = ()
    checksum: int | None = None


class _Batch:
    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except UnicodeDecodeError:
            last = self._batch.next_offset - 1
            log.warning("records with a header that cannot be read are left out", up_to=last)
            yield _Unreadable(last, self._batch.max_timestamp, self._batch.timestamp_type)


class _Records:
    """In the place of aiokafka's `MemoryRecords`: the batches of one answer of the broker."""

    def __init__(self, answer: bytes) -> None:
        self._records: Final = MemoryRecords(answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        return None if batch is None else _Batch(batch)


def read_past_strange_headers() -> None:
    """For this process."""
    fetcher.MemoryRecords = _Records
