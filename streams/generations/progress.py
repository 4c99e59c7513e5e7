"""How far the building of a generation is: what its encode group has committed of its goal."""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from schemas.generations import GenerationRecord
from schemas.ids import Offset
from schemas.topics import encode_group
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place


class Progress(Struct, frozen=True):
    """Counted in offsets of the context topics. Compaction leaves gaps between them, so they are more than records."""

    done: int
    goal: int
    left_s: float | None
    """At the speed so far. None as long as nothing is done."""

    @property
    def share(self) -> float:
        return self.done / self.goal if self.goal else 1.0


def read_progress(reader: OffsetReader, record: GenerationRecord, now: datetime) -> Progress | None:
    """None for a generation that is not being built. Raises StreamsError."""
    if record.state != "building":
        return None
    places = [place for place in reader.places(record.goal) if place.partition in record.goal[place.topic]]
    return progress(record, reader.starts(places), reader.committed(encode_group(record.id), places), now)


def progress(
    record: GenerationRecord, starts: Offsets, committed: Mapping[Place, Offset | None], now: datetime
) -> Progress:
    goals = {place: max(start, record.goal[place.topic][place.partition]) for place, start in starts.items()}
    goal = sum(end - starts[place] for place, end in goals.items())
    reached = {place: min(goals[place], offset) for place, offset in committed.items() if offset is not None}
    done = sum(max(0, offset - starts[place]) for place, offset in reached.items())
    passed_s = (now - record.since).total_seconds()
    return Progress(done, goal, passed_s * (goal - done) / done if done else None if goal else 0.0)
