"""How many records lie between two offsets of a partition. Control records of transactions take offsets too, and
compaction leaves gaps, so offsets count more than there is to do: a fifth more where transactions are small.

Reads the last offsets before the end, now and then, and takes what was found there for the whole. Knows no stage.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Final, NamedTuple

import structlog
from confluent_kafka import Consumer

from schemas.ids import Offset
from streams.errors import StreamsError
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place
from streams.operate.lag import PartitionLag, StageLag
from streams.settings import KafkaSettings

_KNOWN_FOR_S: Final = 10.0
_STRETCH: Final = 500
"""So many offsets are read: a few per cent of uncertainty, for some milliseconds."""
_READ_S: Final = 0.5
"""For all partitions of one look; what there was no time for comes at the next one."""

log = structlog.get_logger(__name__)


class _Share(NamedTuple):
    """`of_offsets`: None where the stretch held no record, as after a batch that was aborted: then nothing is known of
    what lies before it, and offsets are counted."""

    of_offsets: float | None
    read_at_s: float


class RecordShares:
    """One thread. The monitor never closes it: at the end of the process it may still wait for the broker."""

    def __init__(
        self,
        kafka: KafkaSettings,
        reader: OffsetReader,
        clock: Callable[[], float] = time.monotonic,
        stretch: int = _STRETCH,
    ) -> None:
        self._kafka = kafka
        self._reader = reader
        self._clock = clock
        self._stretch = stretch
        self._consumer: Consumer | None = None
        self._shares: dict[Place, _Share] = {}

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def in_records(self, stages: list[StageLag], read_s: float = _READ_S) -> list[StageLag]:
        """The same with lags that count records, at least one where something waits. Reading takes at most `read_s`.
        A partition that there was no time for is taken to be like the others of its topic; of a topic of which nothing
        was read offsets are counted. Raises StreamsError if the broker does not say which records can be read."""
        done: Offsets = {}
        for stage in stages:
            for place, lag in stage.partitions.items():
                if lag.records:
                    done[place] = min(lag.done, done.get(place, lag.done))
        self._read_unknown(done, read_s)
        of_topics = self._shares_of_topics()
        return [
            stage._replace(
                partitions={place: self._counted(place, lag, of_topics) for place, lag in stage.partitions.items()}
            )
            for stage in stages
        ]

    def _counted(self, place: Place, lag: PartitionLag, of_topics: Mapping[str, float]) -> PartitionLag:
        own = self._shares.get(place)
        share = of_topics.get(place.topic) if own is None else own.of_offsets
        if not lag.records or share is None:
            return lag
        return lag._replace(records=max(1, round((lag.end - lag.done) * share)))

    def _shares_of_topics(self) -> dict[str, float]:
        """The mean of what was found in each topic's partitions, which are written in the same way."""
        shares: defaultdict[str, list[float]] = defaultdict(list)
        for place, share in self._shares.items():
            if share.of_offsets is not None:
                shares[place.topic].append(share.of_offsets)
        return {topic: fmean(of_partitions) for topic, of_partitions in shares.items()}

    def _read_unknown(self, done: Offsets, read_s: float) -> None:
        """What was done before `done` says nothing of what waits."""
        now_s = self._clock()
        self._shares = {at: share for at, share in self._shares.items() if now_s - share.read_at_s < _KNOWN_FOR_S}
        # One partition of each topic first, so that as many topics as possible are known when the time is up.
        unknown = sorted((place for place in done if place not in self._shares), key=lambda place: place.partition)
        if not unknown:
            return
        starts, ends = self._reader.starts(unknown), self._reader.stable_ends(unknown)
        deadline = time.monotonic() + read_s
        for place in unknown:
            end = ends[place]
            first = Offset(max(starts[place], done[place], end - self._stretch))
            if first < end and (number := self._count(place, first, end, deadline)) is not None:
                self._shares[place] = _Share(number / (end - first) or None, now_s)

    def _count(self, place: Place, first: Offset, end: Offset, deadline: float) -> int | None:
        """None if there was no time to read them."""
        if self._consumer is None:
            self._consumer = scanner(self._kafka)
        try:
            with kafka_errors():
                try:
                    return sum(1 for _ in scan(self._consumer, place, first, end, deadline=deadline))
                finally:
                    self._consumer.unassign()  # else it would go on fetching
        except StreamsError as error:
            log.debug("the records of a partition were not counted", place=place, error=str(error))
            return None
