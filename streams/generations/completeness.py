"""Finds out when a generation that is being built has everything that its goal asks for, and says so in the log.

Complete is what the encode group has encoded up to the goal, and the index group has indexed up to what was encoded by
then. Knows no tier: the index group commits only what is durable in one.
"""

from typing import Final

import structlog

from schemas.generations import GenerationRecord
from schemas.ids import Generation
from schemas.stages import encode_reads, index_reads, live_reads
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.log import change_generations
from streams.kafka.offsets import OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place
from streams.settings import KafkaSettings

_PROBE_S: Final = 1.0

log = structlog.get_logger(__name__)


class Completeness:
    """Of one generation, for one thread. What it has found out is lost with it: then it is found out again."""

    def __init__(self, kafka: KafkaSettings, record: GenerationRecord) -> None:
        self._kafka = kafka
        self._record = record
        self._reader = OffsetReader(kafka)
        self._encoded: Offsets | None = None
        """The ends of the embedding topics when everything up to the goal was encoded. None before that."""
        self._last: Offsets = {}
        """Where the group that is waited for was at the last look, where it was behind."""

    def close(self) -> None:
        self._reader.close()

    def look(self) -> bool:
        """True if it is complete. Raises StreamsError."""
        if self._encoded is None:
            if self._is_behind(encode_reads(self._record.id).group, self._goal()):
                return False
            _, index = live_reads(self._record.id, self._record.contexts)
            places = self._reader.places(index.topics)
            self._encoded, self._last = self._reader.ends(places), {}
            log.info("the goal is encoded", generation=self._record.id)
        return not self._is_behind(index_reads(self._record.id).group, self._encoded)

    def _goal(self) -> Offsets:
        """A broker that lost its newest records, and with them the contexts there, can never give them."""
        goal = {
            Place(topic, partition): offset
            for topic, offsets in self._record.goal.items()
            for partition, offset in offsets.items()
        }
        ends = self._reader.ends(goal)
        return {place: min(offset, ends[place]) for place, offset in goal.items()}

    def _is_behind(self, group: str, ends: Offsets) -> bool:
        """A group may never commit up to an end, where only control records are before it. So the next record of a
        partition that has not moved since the last look is looked for."""
        offsets = going_on_at(self._reader.committed(group, ends), self._reader.starts(ends))
        behind = {place: offset for place, offset in offsets.items() if offset < ends[place]}
        unmoved = {place: offset for place, offset in behind.items() if self._last.get(place) == offset}
        self._last = behind
        first_records = self._reader.first_records(unmoved, ends, _PROBE_S)
        return any(first_records.get(place, True) is not None for place in behind)


def say_ready_if_complete(kafka: KafkaSettings, completeness: Completeness, generation: Generation, who: str) -> bool:
    """Any number of processes may call it: only the first one changes anything. Raises StreamsError."""
    if not completeness.look():
        return False
    by = acts.acting(who, "everything up to its goal is encoded and indexed")
    try:
        change_generations(kafka, lambda state: acts.ready(state, generation, by))
    except ActRefused as refused:
        log.info("what was built is not wanted any more", why=str(refused))
    return True
