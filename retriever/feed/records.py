"""What both feeds do with records: decode them, apply them, and skip those that cannot be applied.

The index stage makes a dead letter of each record that is skipped here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import structlog
from confluent_kafka import Message

from indexer.errors import TierRefused
from schemas.errors import BadRecord
from schemas.headers import read_origin_ms
from schemas.ids import Offset, Partition

_log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R", bound=tuple[object, ...])


class RecordPlace(NamedTuple):
    partition: Partition
    offset: Offset


class SkippingRecords:
    """Used by one thread; any thread may read `skipped`."""

    def __init__(self) -> None:
        self.skipped = 0
        """How many records were skipped so far."""

    def decode(self, message: Message, decode: Callable[[bytes | None], T]) -> T | None:
        """None for a record for which `decode` raises BadRecord."""
        try:
            return decode(message.value())
        except BadRecord as error:
            self._skip(error, record=f"{message.topic()}/{message.partition()}@{message.offset()}")
            return None

    def apply(self, records: Sequence[T], apply: Callable[[Sequence[T]], int]) -> None:
        """If the tier refuses one of them, it is given one by one, so that the others are not kept out."""
        try:
            apply(records)
        except TierRefused:
            for record in records:
                try:
                    apply([record])
                except TierRefused as error:
                    self._skip(error)

    def _skip(self, error: Exception, **record: str) -> None:
        self.skipped += 1
        _log.warning("record skipped", error=str(error), **record)


def place_of(message: Message) -> RecordPlace:
    """Of a message that is a record."""
    return RecordPlace(Partition(int(message.partition() or 0)), Offset(int(message.offset() or 0)))


def age_s(message: Message, now_s: float) -> float | None:
    """The age of the input event whose effect is in this record. None for a delayed publication, which names none."""
    origin_ms = read_origin_ms(message)
    return None if origin_ms is None else now_s - origin_ms / 1000
