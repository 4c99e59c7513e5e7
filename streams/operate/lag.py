"""How far each stage is behind, in records and in time, and how many records were deleted before it had read them.

Asks the broker for offsets, and the hot feed, which has no consumer group, for its own. Knows no stage's inside.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from schemas.ids import Millis, Partition
from schemas.stages import StageReads
from streams.kafka.deleted_unread import Committed, deleted_since
from streams.kafka.offsets import FirstRecord, OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place


class Lag(NamedTuple):
    """`records` are not yet processed; None if that is unknown. `oldest_ms` is the timestamp of the oldest of them.
    `deleted` is how many records were deleted before they were read, at most, for each partition that lost any."""

    stage: str
    group: str
    topic: str
    records: int | None
    oldest_ms: Millis | None
    deleted: Mapping[Partition, int]


def _unknown() -> Offsets | None:
    return None


def read_lags(
    reader: OffsetReader, reads: Iterable[StageReads], probe_s: float, hot_feed: Callable[[], Offsets | None] = _unknown
) -> list[Lag]:
    """One lag for each stage and topic; unknown if the topic does not exist yet. Raises StreamsError.

    Reading the first records takes at most `probe_s` for each stage. `hot_feed` returns the offsets of the stage that
    has no group. It is asked after all others, and may block.
    """
    reads = list(reads)
    reader.get_ready(read.group for read in reads if read.group)
    places = reader.places(sorted({name for read in reads for name in read.topics}))
    starts, ends = reader.starts(places), reader.ends(places)
    lags = []
    for read in reads:
        progress = _progress(reader, read, [place for place in places if place.topic in read.topics], hot_feed)
        done = going_on_at({place: committed.offset for place, committed in progress.items()}, starts)
        # Perhaps behind: there may be nothing but control records before the end.
        below_end = {place: offset for place, offset in done.items() if offset < ends[place]}
        first_records = reader.first_records(below_end, ends, probe_s)
        deleted = deleted_unread(progress, starts) if read.group else {}
        lags += [_topic_lag(read, name, done, ends, first_records, deleted=deleted) for name in read.topics]
    return lags


def deleted_unread(progress: Mapping[Place, Committed], starts: Offsets) -> dict[Place, int]:
    """How many records of each partition a group will never read, at most: those that it has counted itself, and those
    that were deleted since it committed last. Partitions without any are left out."""
    numbers = {
        place: committed.deleted + deleted_since(committed.offset, starts[place])
        for place, committed in progress.items()
    }
    return {place: number for place, number in numbers.items() if number}


def _progress(
    reader: OffsetReader, read: StageReads, places: list[Place], hot_feed: Callable[[], Offsets | None]
) -> dict[Place, Committed]:
    if read.group:
        return reader.progress(read.group, places)
    offsets = hot_feed()
    return {} if offsets is None else {place: Committed(offsets.get(place), 0) for place in places}


def _topic_lag(
    read: StageReads,
    topic: str,
    done: Offsets,
    ends: Offsets,
    first_records: Mapping[Place, FirstRecord | None],
    *,
    deleted: Mapping[Place, int],
) -> Lag:
    places = [place for place in done if place.topic == topic]
    if not places:
        return Lag(read.stage, read.group, topic, None, None, {})
    # A partition without an answer counts as behind; None means that there is no record to read.
    behind = [place for place in places if done[place] < ends[place] and first_records.get(place, True) is not None]
    times_ms = [first.timestamp_ms for place in behind if (first := first_records.get(place)) is not None]
    return Lag(
        read.stage,
        read.group,
        topic,
        sum(ends[place] - done[place] for place in behind),
        min(times_ms, default=None),
        {place.partition: number for place, number in deleted.items() if place.topic == topic},
    )
