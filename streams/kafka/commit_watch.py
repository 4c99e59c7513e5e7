"""Detects from outside that a consumer group commits nothing although there is something to read."""

from collections.abc import Collection, Hashable, Mapping
from typing import Final, Generic, TypeVar

from schemas.ids import Offset
from streams.errors import StreamsError
from streams.kafka.offsets import OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place
from streams.settings import KafkaSettings

CALL_TIMEOUT_S: Final = 5.0

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Unchanged(Generic[_Key, _Value]):
    """Finds keys whose value was the same at more than `looks` looks in a row. Counts looks, not time: nobody looks
    during an outage or while the machine is suspended, so that neither makes anything look stalled."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._seen: dict[_Key, tuple[_Value, int]] = {}

    def look(self, values: Mapping[_Key, _Value]) -> list[_Key]:
        """Takes the current values. Keys that are missing are forgotten."""
        before, self._seen = self._seen, {}
        for key, value in values.items():
            last_value, looks = before.get(key, (value, 0))
            self._seen[key] = (value, looks + 1 if last_value == value else 1)
        return [key for key, (_, looks) in self._seen.items() if looks > self._looks]


class CommitWatch:
    """Asks only the broker, so that nothing inside a broken stage can hide the stall. One thread at a time."""

    def __init__(self, kafka: KafkaSettings, group: str, looks: int) -> None:
        self._group = group
        self._reader = OffsetReader(kafka, CALL_TIMEOUT_S)
        self._waiting = Unchanged[Place, Offset](looks)

    def close(self) -> None:
        self._reader.close()

    def stalled(self, places: Collection[Place]) -> list[Place]:
        """The partitions that had something to read and the same committed offset at more than `looks` calls in a row.
        Raises StreamsError if the broker does not answer. Then nothing is known, and counting starts again."""
        try:
            offsets = self.waiting(places)
        except StreamsError:
            self._waiting.look({})
            raise
        return self._waiting.look(offsets)

    def waiting(self, places: Collection[Place]) -> Offsets:
        """Where the group goes on reading, for the partitions that hold a record for it. A committed offset below the
        end does not suffice: what follows may be only control records, or another client's open transaction. So the
        first record is looked for. Raises StreamsError."""
        if not places:
            return {}
        starts, ends = self._reader.starts(places), self._reader.ends(places)
        next_offsets = going_on_at(self._reader.committed(self._group, places), starts)
        behind = {place: offset for place, offset in next_offsets.items() if offset < ends[place]}
        firsts = self._reader.first_records(behind, ends, CALL_TIMEOUT_S)
        return {place: offset for place, offset in behind.items() if firsts.get(place) is not None}
