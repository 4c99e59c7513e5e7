"""Makes aiokafka, Faust's Kafka client, skip a record that it cannot parse: one with a header name that is not UTF-8.

An example. A producer in another language has written one batch of five records, and the third one has such a header:

    offset           10     11     12                        13     14
    header name      "h"    "h"    b"\\xff\\xfe"               "h"    "h"

The broker returns the batch as it is, and aiokafka decodes it record by record:

    aiokafka alone        10, 11, then UnicodeDecodeError. It fetches from 12 again and fails again, for ever: trending
                          never gets past this record.
    with this module      10, 11, and an `_Unreadable` record at offset 14 in the place of the rest of the batch.

The stand-in has the batch's last offset, so that the commit of it moves the group to 15, behind the batch. It has no
value, so that trending skips it as no event. The readable records 13 and 14 are lost to trending, which counts
approximately anyway.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

log = structlog.get_logger(__name__)


class _Unreadable(NamedTuple):
    """Has the fields of aiokafka's records."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[()] = ()
    checksum: int | None = None


class _Batch:
    """One of aiokafka's batches, whose records are iterated as the example shows."""

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
            last_offset = self._batch.next_offset - 1
            log.warning("records with a header that cannot be read are left out", up_to=last_offset)
            yield _Unreadable(last_offset, self._batch.max_timestamp, self._batch.timestamp_type)


class _Records:
    """Replaces aiokafka's `MemoryRecords`, which holds the batches of one fetch response."""

    def __init__(self, response: bytes) -> None:
        self._records: Final = MemoryRecords(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        return None if batch is None else _Batch(batch)


def skip_unreadable_headers() -> None:
    """Changes aiokafka for the whole process."""
    fetcher.MemoryRecords = _Records
