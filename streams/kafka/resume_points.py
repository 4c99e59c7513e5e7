"""Where a consumer group resumes reading the partitions that it is given.

Compares the committed offsets with the records that the broker still has: some may have been deleted by retention, and
a broker that was restored from an older state may have lost its newest ones. Knows no stage's work.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING

from schemas.ids import Offset
from streams.kafka.deleted_unread import Committed, consequence, deleted_since
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.settings import KafkaSettings

NO_RESET: Final = {"auto.offset.reset": "error"}
"""For consumers that start where this module says. By default the client would silently go on at the earliest record
that is left. With this it reports an error, the loop ends, and its next start counts the missing records."""

log = structlog.get_logger(__name__)


class ResumePoint(NamedTuple):
    """Where a group resumes one partition. `read_from` is an offset or OFFSET_BEGINNING. `committed` is the offset that
    the group counts as committed, None if it never committed any. `deleted` is how many records were deleted unread so
    far; it is committed with every offset from now on."""

    read_from: int
    committed: Offset | None
    deleted: int

    @property
    def rewind_to(self) -> Offset | None:
        """The offset to go back to: the broker has lost its newest records, or all are read again. None if the group
        goes on where it was.

        Commit it before anything else. New records will get the offsets of the lost ones, and a group that still had
        the old committed offset would skip them."""
        return Offset(self.read_from) if self.committed is not None and self.read_from < self.committed else None


def rewinds(points: Mapping[Place, ResumePoint]) -> dict[Place, Offset]:
    """The partitions that must be rewound, with the offset to go back to."""
    return {place: point.rewind_to for place, point in points.items() if point.rewind_to is not None}


def from_the_start(
    kafka: KafkaSettings, points: Mapping[Place, ResumePoint], timeout_s: float
) -> dict[Place, ResumePoint]:
    """The same partitions, read again from the first record that the broker still has. Raises StreamsError."""
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        log_starts = reader.starts(points)
    return {
        place: point if point.committed is None else point._replace(read_from=log_starts[place])
        for place, point in points.items()
    }


def has_committed_records(kafka: KafkaSettings, points: Mapping[Place, ResumePoint], timeout_s: float) -> bool:
    """Whether a record that the group has committed is still there. What it has committed may be control records alone,
    or gone with the newest records of the broker. True also if there is no time to find out. Raises StreamsError."""
    ends = {place: Offset(point.read_from) for place, point in points.items() if point.committed}
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        log_starts = reader.starts(ends)
        stretches = {place: log_starts[place] for place, end in ends.items() if log_starts[place] < end}
        firsts = reader.first_records(stretches, ends, timeout_s)
    return any(firsts.get(place, True) is not None for place in stretches)


def find_resume_points(
    kafka: KafkaSettings, group: str, committed: Mapping[Place, Committed], timeout_s: float
) -> dict[Place, ResumePoint]:
    """Logs which records are missing. Raises StreamsError."""
    known = [place for place, progress in committed.items() if progress.offset is not None]
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        log_starts, ends = reader.starts(known), reader.ends(known)
    return {place: _resume_point(group, place, progress, log_starts, ends) for place, progress in committed.items()}


def _resume_point(group: str, place: Place, progress: Committed, log_starts: Offsets, ends: Offsets) -> ResumePoint:
    if progress.offset is None:
        return ResumePoint(OFFSET_BEGINNING, None, progress.deleted)
    where = {"group": group, "topic": place.topic, "partition": place.partition}
    deleted = deleted_since(progress.offset, log_starts[place])
    if deleted:
        log.error(
            "records were deleted before they were read",
            **where,
            records_at_most=deleted,
            so=consequence(group, place.topic),
        )
        return ResumePoint(log_starts[place], log_starts[place], progress.deleted + deleted)
    if progress.offset > ends[place]:
        log.error("the broker has lost its newest records; reading goes on at its end", **where, end=ends[place])
    return ResumePoint(min(progress.offset, ends[place]), progress.offset, progress.deleted)
