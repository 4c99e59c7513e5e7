"""How far each stage is behind, in records and in time, and what was deleted before a stage had read it."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from schemas.ids import Millis, Partition
from schemas.stages import StageReads
from streams.kafka.deleted_unread import Committed, deleted_since
from streams.kafka.offsets import FirstRecord, OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place


class Lag(NamedTuple):
    """`records` not yet done, None when unknown; `oldest_ms` is the timestamp of the first of them. `deleted` is how
    many records of each partition were deleted before they were read, at most, where any were."""

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
    """One line for each stage and topic; unknown where the topic does not exist yet. Raises StreamsError.

    `probe_s` bounds the look at first records, for each stage. `hot_feed` says how far the stage without a group is; it
    is asked after all others, and may block.
    """
    reads = list(reads)
    reader.get_ready(read.group for read in reads if read.group)
    places = reader.places(sorted({name for read in reads for name in read.topics}))
    starts, ends = reader.starts(places), reader.ends(places)
    lags = []
    for read in reads:
        own = [place for place in places if place[0] in read.topics]
        progress = _progress(reader, read, own, hot_feed)
        done = going_on_at({place: at.offset for place, at in progress.items()}, starts)
        doubtful = {place: offset for place, offset in done.items() if offset < ends[place]}
        firsts = reader.first_records(doubtful, ends, probe_s) if doubtful else {}
        deleted = deleted_unread(progress, starts) if read.group else {}
        lags += [_topic_lag(read, name, done, ends, firsts, deleted=deleted) for name in read.topics]
    return lags


def deleted_unread(progress: Mapping[Place, Committed], starts: Offsets) -> dict[Place, int]:
    """How many records of each partition a group will never read, at most, where there are any: those that it has
    counted, and those that were deleted since it committed last."""
    found = {place: at.deleted + deleted_since(at.offset, starts[place]) for place, at in progress.items()}
    return {place: number for place, number in found.items() if number}


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
    firsts: Mapping[Place, FirstRecord | None],
    *,
    deleted: Mapping[Place, int],
) -> Lag:
    own = [place for place in done if place[0] == topic]
    if not own:
        return Lag(read.stage, read.group, topic, None, None, {})
    behind = [place for place in own if done[place] < ends[place] and firsts.get(place, True) is not None]
    seen = [first.timestamp_ms for place in behind if (first := firsts.get(place)) is not None]
    return Lag(
        read.stage,
        read.group,
        topic,
        sum(ends[place] - done[place] for place in behind),
        min(seen, default=None),
        {place.partition: number for place, number in deleted.items() if place.topic == topic},
    )
