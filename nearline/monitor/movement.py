"""What has moved between looks at the broker: since when each stage has committed nothing of a topic although records
wait there, and for how long a record has waited at least.

Takes what each look has seen, and the time of the look. Knows neither Kafka clients nor what is made of it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schemas.ids import Offset
from schemas.topics import asks_to_replay
from streams.kafka.records import Place
from streams.operate.lag import PartitionLag, StageLag

_Topic = tuple[str, str]
"""A group and a topic."""


class Still(NamedTuple):
    """Nothing was committed of the topic since this look, though records waited. `records` is how many the stage had to
    read then."""

    since_s: float
    records: int


class Movement:
    """One thread. Times are those of any clock that only goes forward."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, Place], Offset] = {}
        self._ends: dict[tuple[str, Place], Offset] = {}
        self._still: dict[_Topic, Still] = {}
        self._waited_since_s: dict[tuple[str, Place], float] = {}
        self._last_at_s: float | None = None

    def look(self, at_s: float, stages: Iterable[StageLag]) -> None:
        """Takes the next look. Groups and topics that are not in it are forgotten."""
        still, waited, done, ends = {}, {}, {}, {}
        for stage in stages:
            group = stage.reads.group
            total = sum(lag.records for lag in stage.partitions.values())
            for topic in stage.reads.topics:
                partitions = {place: lag for place, lag in stage.partitions.items() if place.topic == topic}
                waits = any(lag.records for lag in partitions.values())
                if waits and not asks_to_replay(topic):
                    moved = any(self._has_moved(group, place, lag) for place, lag in partitions.items())
                    fresh = Still(at_s, total)
                    still[group, topic] = fresh if moved else self._still.get((group, topic), fresh)
            for place, lag in stage.partitions.items():
                done[group, place], ends[group, place] = lag.done, lag.end
                if lag.records:
                    waited[group, place] = self._waits_since(at_s, (group, place), lag)
        self._still, self._waited_since_s, self._done, self._ends = still, waited, done, ends
        self._last_at_s = at_s

    def interrupted(self) -> None:
        """The broker has not answered, so nobody could move. That is counted from the next look on."""
        self._still = {}

    def still(self, group: str) -> Still | None:
        """Of the topic of which nothing was committed for the longest time. None if all of them move, or have nothing
        to read."""
        return min((still for (of, _), still in self._still.items() if of == group), default=None)

    def waits_since(self, group: str) -> Mapping[Place, float]:
        """For each partition with a record that waits, a time at which it had come in already."""
        return {place: since_s for (of, place), since_s in self._waited_since_s.items() if of == group}

    def _has_moved(self, group: str, place: Place, lag: PartitionLag) -> bool:
        return self._done.get((group, place), lag.done) != lag.done

    def _waits_since(self, at_s: float, key: tuple[str, Place], lag: PartitionLag) -> float:
        """While the group stays where it is, the same record waits. Where it has moved on, the next one may have been
        there at the look before."""
        if key in self._waited_since_s and self._done[key] == lag.done:
            return self._waited_since_s[key]
        was_there = self._last_at_s is not None and self._ends.get(key, Offset(0)) > lag.done
        return self._last_at_s if was_there and self._last_at_s is not None else at_s
