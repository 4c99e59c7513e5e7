"""Follows the records that have been sent, stage by stage, until all of them are searchable.

Owns the order in which stages are waited for. The ends of what a stage reads are taken only when the stage before it is
done: by then everything that the earlier stages make of the input is in there. Knows no tier.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from schemas import stages, topics
from schemas.generations import GenerationRecord
from schemas.ids import ContextVersion, Generation, Offset, Partition
from schemas.stages import StageReads
from schemas.topics import ReplayedStage, context_names
from streams.errors import KafkaRefused, LoginRefused, RetrieverSilent, StillBehind, StreamsError
from streams.generations.log import read_generations
from streams.kafka.offsets import OffsetReader, Offsets, going_on_at
from streams.kafka.records import Place
from streams.kafka.sending import send_all
from streams.operate.republish import flush_record
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.1
_PROBE_S: Final = 1.0
_ANSWER_S: Final = 5.0
_REFUSED_LOGINS: Final = 2
"""In a row. A broker that is just shutting down may break off one handshake."""


def _republish(version: ContextVersion) -> StageReads:
    return stages.contexts_reads(version)._replace(topics=(topics.REPUBLISH,))


_REPUBLISH: Final = _republish(topics.FIRST_CONTEXTS)

_T = TypeVar("_T")

HotOffsets = Callable[[], dict[Partition, Offset] | None]
"""For each partition of the post embeddings the first offset that the hot feed has not applied yet. None: no answer."""


class Progress(NamedTuple):
    """What is waited for now. `records` is how many the stage still has to read; None: the broker did not answer."""

    stage: str
    topic: str
    records: int | None


class _Step(NamedTuple):
    stage: str
    topics: tuple[str, ...]
    read_offsets: Callable[[list[Place]], dict[Place, Offset | None]]
    """How far the stage is."""
    generation: Generation | None = None
    """None: the stage works for all of them."""


class _NotWanted(Exception):
    """Ends a step whose generation was retired."""


class Wait:
    """One `nearline wait`, or the end of a `nearline replay --wait`. Waits out every outage until the time is up."""

    def __init__(
        self,
        kafka: KafkaSettings,
        generation: Generation,
        hot_offsets: HotOffsets,
        report: Callable[[Progress], None] = lambda _: None,
        *,
        timeout_s: float = 300.0,
        answer_s: float = _ANSWER_S,
    ) -> None:
        """`report` is called at every look. `answer_s` is how long the broker may take for one answer."""
        self._kafka = kafka
        self._generation = generation
        self._hot_offsets = hot_offsets
        self._report = report
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._reader = OffsetReader(kafka, answer_s)
        self._contexts = topics.FIRST_CONTEXTS
        """The version that the generation reads."""

    def run(self) -> None:
        """Returns once everything that was sent before the call is searchable. Raises StillBehind when the time is up,
        or the generation is retired meanwhile; LoginRefused if the broker refuses the login or is not trusted."""
        try:
            # 1. The input and the two hops, in the order in which each makes records for the next.
            self._contexts = self._read_version()
            self._follow_inputs(self._contexts)
            # 2. Publish what the context stage holds back for later.
            self._flush()
            self._follow(self._group_step(_republish(self._contexts)))
            # 3. Encoding, and both tiers.
            self._follow_encode()
            # 4. The generations beside it.
            for other in self._retry(self._group_step(_REPUBLISH), self._others):
                self._follow_other(other)
        finally:
            self._reader.close()

    def run_contexts(self, versions: Iterable[ContextVersion]) -> None:
        """Returns once these versions of the contexts have applied all events that were there at the call, one version
        after the other. Publications may still be held back."""
        try:
            for version in versions:
                self._follow_inputs(version)
        finally:
            self._reader.close()

    def run_from(self, stage: ReplayedStage) -> None:
        """The same for what this stage was sent before the call, also to be processed again, and what the stages after
        it make of that. The hot feed reads nothing that the index stage is asked for."""
        try:
            if stage == "encode":
                self._contexts = self._read_version()
                self._follow_encode()
            else:
                self._follow_own(self._group_step(stages.index_reads(self._generation)))
        finally:
            self._reader.close()

    def _read_version(self) -> ContextVersion:
        """Of the contexts that the generation reads."""
        step = self._group_step(stages.CONTEXTS._replace(topics=topics.INPUTS))
        return self._retry(step, lambda: read_generations(self._kafka)).contexts_of(self._generation)

    def _follow_inputs(self, version: ContextVersion, generation: Generation | None = None) -> None:
        """`generation`: whose contexts are waited for; None: those of the serving one."""
        reads = stages.contexts_reads(version)
        hops = context_names(version).hops
        inputs = tuple(name for name in reads.topics if name not in (*hops, topics.REPUBLISH))
        for names in (inputs, *((hop,) for hop in hops)):
            self._follow(self._group_step(reads._replace(topics=names))._replace(generation=generation))

    def _follow_encode(self) -> None:
        self._follow_own(self._group_step(stages.encode_reads(self._generation, self._contexts)))
        self._follow_own(self._group_step(stages.index_reads(self._generation)))
        hot_feed = stages.hot_feed_reads(self._generation)
        self._follow_own(_Step(hot_feed.stage, hot_feed.topics, self._read_hot_offsets))

    def _follow_own(self, step: _Step) -> None:
        try:
            self._follow(step._replace(generation=self._generation))
        except _NotWanted as error:
            raise StillBehind(
                f"the generation {self._generation}, which served at the beginning, was retired meanwhile; "
                "run the command again"
            ) from error

    def _others(self) -> list[GenerationRecord]:
        live = read_generations(self._kafka).live
        return [record for record in live if record.id != self._generation]

    def _is_wanted(self, step: _Step) -> bool:
        """False: its generation was retired, and nobody waits for it any more. Raises StreamsError."""
        if step.generation is None:
            return True
        record = read_generations(self._kafka).records.get(step.generation)
        return record is None or record.state != "retired"

    def _follow_other(self, other: GenerationRecord) -> None:
        """Until it is retired. If it reads contexts of another version, these come first."""
        generation = other.id
        if other.contexts != self._contexts:
            with suppress(_NotWanted):
                self._follow_inputs(other.contexts, generation)
                self._flush()
                self._follow(self._group_step(_republish(other.contexts))._replace(generation=generation))
        for reads in (stages.encode_reads(generation, other.contexts), stages.index_reads(generation)):
            step = self._group_step(reads)._replace(stage=f"{reads.stage} of {generation}", generation=generation)
            with suppress(_NotWanted):
                self._follow(step)

    def _group_step(self, reads: StageReads) -> _Step:
        return _Step(reads.stage, reads.topics, lambda places: self._reader.committed(reads.group, places))

    def _read_hot_offsets(self, places: list[Place]) -> dict[Place, Offset | None]:
        offsets = self._hot_offsets()
        if offsets is None:
            raise RetrieverSilent("the retriever does not answer")
        return {place: offsets.get(place.partition) for place in places}

    def _follow(self, step: _Step) -> None:
        """Takes the ends of what the stage reads once, and returns when the stage has reached them.

        For example, the encode stage reads two partitions, P0 and P1:

            look  partition  end  committed  behind
            1     P0         120  100        yes: 20 records are left
                  P1          57   55        yes: 2 records may be left
            2     P0         120  120        no
                  P1          57   55        no: see below

        P0 is done when its committed offset is at its end. P1 may never get there: the offsets 55 and 56 belong to
        control records, such as the markers that end transactions. No reader gets those, and a stage need not commit
        past them. P1 was at 55 in two looks in a row, so the second look reads on from there, finds no record before
        57, and counts P1 as done. If there were a record at 56, P1 would stay behind until that is committed.
        """
        places, ends = self._retry(step, lambda: self._ends(step))
        behind: Offsets = {}
        while True:
            before = behind
            behind = self._retry(step, lambda: self._behind(step, places, ends, before))  # noqa: B023
            if not behind:
                return
            self._pause(step, behind, ends)

    def _behind(self, step: _Step, places: list[Place], ends: Offsets, before: Offsets) -> Offsets:
        """The partitions whose end the stage has not reached, with its offsets. `before` is the same at the last look.

        A partition that has not moved since may have nothing but control records before its end, so its next record is
        read. It stays behind if there is one, or if there was no answer in time."""
        offsets = going_on_at(step.read_offsets(places), self._reader.starts(places))
        behind = {place: offset for place, offset in offsets.items() if offset < ends[place]}
        unmoved = {place: offset for place, offset in behind.items() if before.get(place) == offset}
        first_records = self._reader.first_records(unmoved, ends, _PROBE_S)
        return {place: offset for place, offset in behind.items() if first_records.get(place, True) is not None}

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
        num_refused = 0
        while True:
            try:
                return ask()
            except StreamsError as error:
                num_refused = num_refused + 1 if isinstance(error, LoginRefused) else 0
                if num_refused == _REFUSED_LOGINS:
                    raise
                with suppress(StreamsError):
                    if not self._is_wanted(step):
                        raise _NotWanted from error
                for topic in step.topics:
                    self._report(Progress(step.stage, topic, None))
                self._sleep(f"{step.stage} cannot be seen: {error}")

    def _pause(self, step: _Step, behind: Offsets, ends: Offsets) -> None:
        num_left = dict.fromkeys(step.topics, 0)
        for place, offset in behind.items():
            num_left[place.topic] += ends[place] - offset
        for topic, number in num_left.items():
            self._report(Progress(step.stage, topic, number))
        sentences = [f"{number} records of {topic}" for topic, number in num_left.items() if number]
        self._sleep(f"{step.stage} still has to read {' and '.join(sentences)}")

    def _sleep(self, reason: str) -> None:
        """Raises StillBehind, with the reason, if the time is up."""
        if time.monotonic() + _LOOK_EVERY_S > self._deadline:
            raise StillBehind(f"not everything is searchable after {self._timeout_s:g} s; {reason}")
        time.sleep(_LOOK_EVERY_S)
