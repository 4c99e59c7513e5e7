"""Asks a stage to process records again: all, those of a time, or those of some entities.

Finds the newest record of each entity in the topic that the stage reads, and sends a request for each. Sending twice
does no harm, so a command that was killed is simply called again. Knows no stage's inside.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from schemas import topics
from schemas.ids import ContextVersion, Generation, Kind, Millis, Offset
from schemas.replays import ReplayRequest, encode_request
from schemas.topics import ReplayedStage
from streams.errors import KafkaRefused
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Output, Place, offset_of
from streams.kafka.sending import send_all
from streams.settings import KafkaSettings

_ASK_S: Final = 20.0
_READ_S: Final = 30.0
"""How long the broker may send nothing while records are read."""
_SEND_S: Final = 60.0
_REPORT_EVERY: Final = 10_000

Report = Callable[[int], object]
"""Called now and then while records are read, with how many offsets were passed since the last call."""


class ReplaySelection(NamedTuple):
    """The entities that fulfil every condition that is not None."""

    since_ms: Millis | None = None
    """Their newest record was written at this time or later, by Kafka's timestamp."""
    until_ms: Millis | None = None
    """Their newest record was written before this time."""
    ids: frozenset[bytes] | None = None

    def includes_time(self, timestamp_ms: int) -> bool:
        is_late_enough = self.since_ms is None or timestamp_ms >= self.since_ms
        return is_late_enough and (self.until_ms is None or timestamp_ms < self.until_ms)


class Asked(NamedTuple):
    """What was asked for."""

    numbers: dict[Kind, int]
    """How many entities of each kind."""
    unknown_ids: list[bytes]
    """Those of the selection that no entity has."""


class _Stretch(NamedTuple):
    """The records of one partition in [first, end), of which the newest ones are looked for."""

    place: Place
    first: Offset
    end: Offset


def record_topic(
    stage: ReplayedStage, kind: Kind, generation: Generation, contexts: ContextVersion = topics.FIRST_CONTEXTS
) -> str:
    """The topic whose records the stage processes. `contexts`: the version that the generation reads."""
    if stage == "encode":
        return topics.context_names(contexts).of_kind(kind)
    return topics.embeddings(kind, generation)


class ReplayRequests:
    """One `nearline replay`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        stage: ReplayedStage,
        generation: Generation,
        selection: ReplaySelection,
        *,
        report: Report = int,
        contexts: ContextVersion = topics.FIRST_CONTEXTS,
    ) -> None:
        """`contexts`: the version that the generation reads."""
        self._contexts = contexts
        self._kafka = kafka
        self._stage: ReplayedStage = stage
        self._generation = generation
        self._selection = selection
        self._report = report
        self._unknown_ids = set(selection.ids or ())

    def num_offsets(self, kinds: Sequence[Kind]) -> int:
        """How many offsets `send` will pass. Raises StreamsError."""
        with closing(OffsetReader(self._kafka, _ASK_S)) as reader:
            starts, ends = reader.bounds(self._record_topic(kind) for kind in kinds)
        return sum(ends[place] - starts[place] for place in ends)

    def send(self, kinds: Sequence[Kind]) -> Asked:
        """Returns once the broker has all requests. Raises StreamsError; then call it again."""
        numbers: dict[Kind, int] = {}
        with closing(OffsetReader(self._kafka, _ASK_S)) as reader, closing(scanner(self._kafka)) as consumer:
            for kind in kinds:
                request_topic = topics.replay_requests(self._stage, kind, self._generation)
                numbers[kind] = 0
                # One partition after the other, because all of them together may not fit into memory.
                for stretch in self._stretches(reader, consumer, kind, request_topic):
                    newest = self._newest(consumer, stretch)
                    numbers[kind] += send_all(self._kafka, _requests(newest, stretch, request_topic), _SEND_S)
        return Asked(numbers, sorted(self._unknown_ids))

    def _record_topic(self, kind: Kind) -> str:
        return record_topic(self._stage, kind, self._generation, self._contexts)

    def _stretches(
        self, reader: OffsetReader, consumer: Consumer, kind: Kind, request_topic: str
    ) -> Iterator[_Stretch]:
        names = (self._record_topic(kind), request_topic)
        places = reader.places(names)
        missing = set(names) - {topic for topic, _ in places}
        if missing:
            raise KafkaRefused(
                f"the topic {min(missing)} does not exist on this broker; start the pipeline: nearline up"
            )
        places = [place for place in places if place.topic == names[0]]
        starts = reader.starts(places)
        # Not the high watermarks: records behind an open transaction are still to come, for the stage too.
        ends = reader.stable_ends(places)
        firsts = self._firsts(consumer, starts, ends)
        for place in places:
            self._report(firsts[place] - starts[place])
            yield _Stretch(place, firsts[place], ends[place])

    def _firsts(self, consumer: Consumer, starts: Offsets, ends: Offsets) -> Offsets:
        """The offsets before which no record is late enough."""
        since_ms = self._selection.since_ms
        if since_ms is None:
            return starts
        with kafka_errors():
            times = [TopicPartition(*place, since_ms) for place in starts]
            answers = consumer.offsets_for_times(times, timeout=_ASK_S)
        # A negative offset: there is no such record.
        return {
            place: Offset(min(answer.offset, ends[place])) if answer.offset >= 0 else ends[place]
            for place, answer in zip(starts, answers, strict=True)
        }

    def _newest(self, consumer: Consumer, stretch: _Stretch) -> dict[bytes, Offset]:
        """The offsets of the newest records of the selected entities, in their order."""
        place, first, end = stretch
        ids = self._selection.ids
        newest: dict[bytes, Offset] = {}
        reported = first
        for record in scan(consumer, place, first, end, to_the_end_s=_READ_S):
            key, offset = record.key(), offset_of(record)
            if offset - reported >= _REPORT_EVERY:
                self._report(offset - reported)
                reported = offset
            if key is None or (ids is not None and key not in ids):
                continue
            self._unknown_ids.discard(key)
            newest.pop(key, None)  # what is put in again comes last
            if self._selection.includes_time(record.timestamp()[1]):
                newest[key] = offset
        self._report(end - reported)
        return newest


def _requests(newest: Mapping[bytes, Offset], stretch: _Stretch, topic: str) -> Iterator[Output]:
    """In the partition of the same number as the records."""
    for key, offset in newest.items():
        yield Output(topic, key, encode_request(ReplayRequest(offset, stretch.end)), None, stretch.place.partition)
