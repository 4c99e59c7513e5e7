"""How far each stage is behind, in records and in time, and how many records were deleted before it had read them.

Asks the broker for offsets, and the hot feed, which has no consumer group, for its own. Knows no stage's inside.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from schemas.ids import Millis, Offset, Partition
from schemas.stages import StageReads
from streams.errors import KafkaRefused
from streams.kafka.deleted_unread import Committed, deleted_since
from streams.kafka.offsets import FirstRecord, OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place


class PartitionLag(NamedTuple):
    """How far a stage is behind in one partition: it goes on at `done`, and the partition ends at `end`.

    `records` is 0 where only control records of transactions are left. `oldest_ms` is the timestamp of the first record
    that is left; None without one, and where it cannot be read now, as while a transaction is open.
    """

    done: Offset
    end: Offset
    records: int
    oldest_ms: Millis | None


class StageLag(NamedTuple):
    """`partitions` are those of all topics that exist. `deleted` is how many records were deleted before they were
    read, at most, for each partition that lost any."""

    reads: StageReads
    partitions: Mapping[Place, PartitionLag]
    deleted: Mapping[Place, int]


class Lag(NamedTuple):
    """Of one topic. `records` are not yet processed; None if that is unknown. `oldest_ms` is the timestamp of the
    oldest of them. `deleted` is as in `StageLag`."""

    stage: str
    group: str
    topic: str
    records: int | None
    oldest_ms: Millis | None
    deleted: Mapping[Partition, int]


FirstRecords = Callable[[Offsets, Offsets, float], Mapping[Place, FirstRecord | None]]
"""As `OffsetReader.first_records`."""


def _unknown() -> Offsets | None:
    return None


def read_lags(
    reader: OffsetReader, reads: Iterable[StageReads], probe_s: float, hot_feed: Callable[[], Offsets | None] = _unknown
) -> list[Lag]:
    """One lag for each stage and topic; unknown if the topic does not exist yet. The rest is as for
    `read_stage_lags`."""
    return topic_lags(read_stage_lags(reader, reads, probe_s, hot_feed))


def topic_lags(stages: Iterable[StageLag]) -> list[Lag]:
    """One for each stage and topic; unknown if the topic does not exist yet."""
    return [_topic_lag(stage, topic) for stage in stages for topic in stage.reads.topics]


def read_stage_lags(
    reader: OffsetReader,
    reads: Iterable[StageReads],
    probe_s: float,
    hot_feed: Callable[[], Offsets | None] = _unknown,
    first_records: FirstRecords | None = None,
) -> list[StageLag]:
    """One for each stage. Raises StreamsError.

    Reading the first records takes at most `probe_s` in all: each stage may take half of what is left. `hot_feed`
    returns the offsets of the stage that has no group. It is asked after all others, and may block. `first_records` is
    called in place of the reader's own. A stage that commits under another topic has no partitions where the broker
    refuses to say how far it is.
    """
    reads = list(reads)
    reader.get_ready(read.group for read in reads if read.group)
    places = reader.places(sorted({name for read in reads for name in read.topics}))
    starts, ends = reader.starts(places), reader.ends(places)
    stages = []
    left_s = probe_s
    for read in reads:
        progress = _progress(reader, read, [place for place in places if place.topic in read.topics], hot_feed)
        done = going_on_at({place: committed.offset for place, committed in progress.items()}, starts)
        # Perhaps behind: there may be nothing but control records before the end.
        below_end = {place: offset for place, offset in done.items() if offset < ends[place]}
        began_s = time.monotonic()
        firsts = (first_records or reader.first_records)(below_end, ends, left_s / 2)
        left_s = max(0.0, left_s - (time.monotonic() - began_s))
        partitions = {place: _partition_lag(place, done[place], ends[place], firsts) for place in done}
        counts_deleted = read.group and read.under is None
        stages.append(StageLag(read, partitions, deleted_unread(progress, starts) if counts_deleted else {}))
    return stages


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
    if read.under is not None:
        try:
            return reader.progress_under(read.group, places, read.under)
        except KafkaRefused:
            return {}  # nothing else waits for it, so a right that is missing for it hides no other lag
    if read.group:
        return reader.progress(read.group, places)
    offsets = hot_feed()
    return {} if offsets is None else {place: Committed(offsets.get(place), 0) for place in places}


def _partition_lag(place: Place, done: Offset, end: Offset, firsts: Mapping[Place, FirstRecord | None]) -> PartitionLag:
    if done >= end or (place in firsts and firsts[place] is None):
        return PartitionLag(done, end, 0, None)
    # A partition without an answer counts as behind.
    first = firsts.get(place)
    return PartitionLag(done, end, end - done, None if first is None else first.timestamp_ms)


def _topic_lag(stage: StageLag, topic: str) -> Lag:
    read = stage.reads
    partitions = [lag for place, lag in stage.partitions.items() if place.topic == topic]
    if not partitions:
        return Lag(read.stage, read.group, topic, None, None, {})
    return Lag(
        read.stage,
        read.group,
        topic,
        sum(lag.records for lag in partitions),
        min((lag.oldest_ms for lag in partitions if lag.oldest_ms is not None), default=None),
        {place.partition: number for place, number in stage.deleted.items() if place.topic == topic},
    )
