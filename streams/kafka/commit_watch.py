"""Sees from outside that a consumer group has stopped moving while there is something to read."""

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
    """What was the same at more than `looks` looks in a row. Time is not counted: an outage, or a machine that was
    suspended, is nobody's fault."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._seen: dict[_Key, tuple[_Value, int]] = {}

    def look(self, found: Mapping[_Key, _Value]) -> list[_Key]:
        before, self._seen = self._seen, {}
        for key, value in found.items():
            last, looks = before.get(key, (value, 0))
            self._seen[key] = (value, looks + 1 if last == value else 1)
        return [key for key, (_, looks) in self._seen.items() if looks > self._looks]


class CommitWatch:
    """Asks the broker alone, so that nothing which is broken inside the stage can hide it. One thread at a time."""

    def __init__(self, kafka: KafkaSettings, group: str, looks: int) -> None:
        self._group = group
        self._reader = OffsetReader(kafka, CALL_TIMEOUT_S)
        self._waiting = Unchanged[Place, Offset](looks)

    def close(self) -> None:
        self._reader.close()

    def stalled(self, places: Collection[Place]) -> list[Place]:
        """Those that had something to read, and the same committed offset, at more than so many looks in a row. Raises
        StreamsError when the broker cannot be asked: then nothing is known, and counting begins anew."""
        try:
            found = self.waiting(places)
        except StreamsError:
            self._waiting.look({})
            raise
        return self._waiting.look(found)

    def waiting(self, places: Collection[Place]) -> Offsets:
        """Where the group goes on, where there is a record. Looks, because before the end may be control records
        alone, or a transaction that somebody else has left open. Raises StreamsError."""
        if not places:
            return {}
        starts, ends = self._reader.starts(places), self._reader.ends(places)
        done = going_on_at(self._reader.committed(self._group, places), starts)
        behind = {place: offset for place, offset in done.items() if offset < ends[place]}
        firsts = self._reader.first_records(behind, ends, CALL_TIMEOUT_S) if behind else {}
        return {place: offset for place, offset in behind.items() if firsts.get(place) is not None}
