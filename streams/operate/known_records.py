"""Remembers the first records that a reader gets, for whoever asks again and again: a partition in which nothing has
changed is not read again.

Knows neither groups nor stages.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from schemas.ids import Offset
from streams.kafka.offsets import FirstRecord, OffsetReader, Offsets
from streams.kafka.records import Place

_KNOWN_FOR_S: Final = 30.0
"""Then it is read again: retention or compaction may have deleted the record meanwhile."""


class _Answer(NamedTuple):
    read_at_s: float
    end: Offset
    record: FirstRecord | None
    """None: there is none before `end`."""

    def holds_up_to(self, end: Offset) -> bool:
        """Nothing that is written later comes before the first record."""
        return self.record is not None or self.end == end


class KnownFirstRecords:
    """One thread."""

    def __init__(self, reader: OffsetReader, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._answers: dict[tuple[Place, Offset], _Answer] = {}

    def first_records(self, offsets: Offsets, ends: Offsets, timeout_s: float) -> dict[Place, FirstRecord | None]:
        """As that of the reader, and raises the same."""
        now_s = self._clock()
        self._answers = {at: each for at, each in self._answers.items() if now_s - each.read_at_s < _KNOWN_FOR_S}
        answers = {place: self._answers.get((place, offset)) for place, offset in offsets.items()}
        known = {
            place: answer.record
            for place, answer in answers.items()
            if answer is not None and answer.holds_up_to(ends[place])
        }
        unknown = {place: offset for place, offset in offsets.items() if place not in known}
        read = self._reader.first_records(unknown, ends, timeout_s)
        for place, record in read.items():
            self._answers[place, offsets[place]] = _Answer(now_s, ends[place], record)
        return {**known, **read}
