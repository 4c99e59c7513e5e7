"""Follows what has been sent, stage by stage, until all of it is searchable.

Owns the order in which stages are waited for. Each step takes the ends of what a stage reads when the step before is
done: then everything that the earlier stages made of the input is in there. Knows no tier.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from schemas import stages, topics
from schemas.ids import Generation, Offset, Partition
from schemas.stages import StageReads
from streams.errors import KafkaRefused, LoginRefused, RetrieverSilent, StillBehind, StreamsError
from streams.kafka.offsets import OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place
from streams.kafka.sending import send_all
from streams.operate.republish import flush_record
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.1
_PROBE_S: Final = 1.0
_ANSWER_S: Final = 5.0
_REFUSED_LOOKS: Final = 2
"""In a row. A broker that is just going away may break off a handshake, once."""

_REPUBLISH: Final = stages.CONTEXTS._replace(topics=(topics.REPUBLISH,))

_T = TypeVar("_T")

Positions = Callable[[], dict[Partition, Offset] | None]
"""Next offset of each partition of the post embeddings that the hot feed has not applied; None: it did not answer."""


class Progress(NamedTuple):
    """One look: what is waited for, and how many records it still has to do; None: the broker did not answer."""

    stage: str
    topic: str
    records: int | None


class _Step(NamedTuple):
    stage: str
    topics: tuple[str, ...]
    done: Callable[[list[Place]], dict[Place, Offset | None]]


class Wait:
    """One `nearline wait`. Every outage is waited out until the time is up."""

    def __init__(
        self,
        kafka: KafkaSettings,
        generation: Generation,
        hot_positions: Positions,
        tell: Callable[[Progress], None] = lambda _: None,
        *,
        timeout_s: float = 300.0,
        answer_s: float = _ANSWER_S,
    ) -> None:
        """`answer_s` is given to the broker for each answer."""
        self._kafka = kafka
        self._generation = generation
        self._hot_positions = hot_positions
        self._tell = tell
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._reader = OffsetReader(kafka, answer_s)

    def run(self) -> None:
        """Returns when all that was sent before the call is searchable. Raises StillBehind when the time is up, and
        LoginRefused where the broker refuses the login or is not trusted."""
        try:
            # 1. the input and the two hops, in the order in which each makes records for the next
            for names in (topics.INPUTS, (topics.ACTIVITY_BY_POST,), (topics.ACTIONS_BY_MEMBER,)):
                self._follow(self._group_step(stages.CONTEXTS._replace(topics=names)))
            # 2. what is due later is due now
            self._flush()
            self._follow(self._group_step(_REPUBLISH))
            # 3. encoding, and both tiers
            self._follow(self._group_step(stages.encode_reads(self._generation)))
            self._follow(self._group_step(stages.index_reads(self._generation)))
            hot_feed = stages.hot_feed_reads(self._generation)
            self._follow(_Step(hot_feed.stage, hot_feed.topics, self._hot_offsets))
        finally:
            self._reader.close()

    def _group_step(self, reads: StageReads) -> _Step:
        return _Step(reads.stage, reads.topics, lambda places: self._reader.committed(reads.group, places))

    def _hot_offsets(self, places: list[Place]) -> dict[Place, Offset | None]:
        positions = self._hot_positions()
        if positions is None:
            raise RetrieverSilent("the retriever does not answer")
        return {place: positions.get(place[1]) for place in places}

    def _follow(self, step: _Step) -> None:
        """Takes the ends once, then looks until they are reached."""
        places, ends = self._retry(step, lambda: self._ends(step))
        left: Offsets = {}
        while True:
            before = left
            left = self._retry(step, lambda: self._left(step, places, ends, before))  # noqa: B023
            if not left:
                return
            self._pause(step, left, ends)

    def _left(self, step: _Step, places: list[Place], ends: Offsets, before: Offsets) -> Offsets:
        """Where the stage has not reached the end. One that stands still may have nothing but control records there."""
        done = going_on_at(step.done(places), self._reader.starts(places))
        left = {place: offset for place, offset in done.items() if offset < ends[place]}
        still = {place: offset for place, offset in left.items() if before.get(place) == offset}
        firsts = self._reader.first_records(still, ends, _PROBE_S) if still else {}
        return {place: offset for place, offset in left.items() if firsts.get(place, True) is not None}

    def _ends(self, step: _Step) -> tuple[list[Place], Offsets]:
        places = self._reader.places(step.topics)
        missing = set(step.topics) - {topic for topic, _ in places}
        if missing:
            raise KafkaRefused(
                f"the topic {min(missing)} does not exist on this broker; start the pipeline: nearline up"
            )
        return places, self._reader.ends(places)

    def _flush(self) -> None:
        step = self._group_step(_REPUBLISH)
        places, _ = self._retry(step, lambda: self._ends(step))
        self._retry(step, lambda: send_all(self._kafka, [flush_record(partition) for _, partition in places]))

    def _retry(self, step: _Step, ask: Callable[[], _T]) -> _T:
        refused = 0
        while True:
            try:
                return ask()
            except StreamsError as error:
                refused = refused + 1 if isinstance(error, LoginRefused) else 0
                if refused == _REFUSED_LOOKS:
                    raise
                for topic in step.topics:
                    self._tell(Progress(step.stage, topic, None))
                self._sleep(f"{step.stage} cannot be seen: {error}")

    def _pause(self, step: _Step, left: Offsets, ends: Offsets) -> None:
        behind = dict.fromkeys(step.topics, 0)
        for place, offset in left.items():
            behind[place[0]] += ends[place] - offset
        for topic, records in behind.items():
            self._tell(Progress(step.stage, topic, records))
        sentences = [f"{number} records of {topic}" for topic, number in behind.items() if number]
        self._sleep(f"{step.stage} still has to read {' and '.join(sentences)}")

    def _sleep(self, why: str) -> None:
        if time.monotonic() + _LOOK_EVERY_S > self._deadline:
            raise StillBehind(f"not everything is searchable after {self._timeout_s:g} s; {why}")
        time.sleep(_LOOK_EVERY_S)
