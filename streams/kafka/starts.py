"""Where a group goes on in the partitions that it is given: what it has committed, against what is still there."""

from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING

from schemas.ids import Offset
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.kafka.unread import Committed, consequence, deleted_since
from streams.settings import KafkaSettings

NO_RESET: Final = {"auto.offset.reset": "error"}
"""For consumers that start where this module says. The client would else go on at the earliest record that is left,
and say nothing; now it says so, the loop leaves, and its next start finds out how many are missing."""

log = structlog.get_logger(__name__)


class Start(NamedTuple):
    """`first` is where to read from, an offset or OFFSET_BEGINNING. `committed` counts as committed, None: nothing was.
    `deleted` is how many records were deleted unread so far, to be committed with every offset from now on."""

    first: int
    committed: Offset | None
    deleted: int

    @property
    def set_back(self) -> Offset | None:
        """Where reading goes on after the broker has lost its newest records; None: it has lost none. To be committed
        before anything else: other records will take the places of the lost ones, and what was committed would pass
        over them."""
        return Offset(self.first) if self.committed is not None and self.first < self.committed else None


def set_back(starts: Mapping[Place, Start]) -> dict[Place, Offset]:
    """Those that are, and where to."""
    return {place: start.set_back for place, start in starts.items() if start.set_back is not None}


def find_starts(
    kafka: KafkaSettings, group: str, committed: Mapping[Place, Committed], timeout_s: float
) -> dict[Place, Start]:
    """Says in the log what is missing. Raises StreamsError."""
    known = [place for place, at in committed.items() if at.offset is not None]
    with closing(OffsetReader(kafka, timeout_s)) as reader:
        log_starts, ends = reader.starts(known), reader.ends(known)
    return {place: _start(group, place, at, log_starts, ends) for place, at in committed.items()}


def _start(group: str, place: Place, at: Committed, log_starts: Offsets, ends: Offsets) -> Start:
    if at.offset is None:
        return Start(OFFSET_BEGINNING, None, at.deleted)
    where = {"group": group, "topic": place.topic, "partition": place.partition}
    deleted = deleted_since(at.offset, log_starts[place])
    if deleted:
        log.error(
            "records were deleted before they were read",
            **where,
            records_at_most=deleted,
            so=consequence(group, place.topic),
        )
        return Start(log_starts[place], log_starts[place], at.deleted + deleted)
    if at.offset > ends[place]:
        log.error("the broker has lost its newest records; reading goes on at its end", **where, end=ends[place])
    return Start(min(at.offset, ends[place]), at.offset, at.deleted)
