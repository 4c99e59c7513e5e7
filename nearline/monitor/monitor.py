"""Looks at the broker and at the processes, again and again, and says what was seen: figures and a report.

One thread looks at the broker, and may wait for it; another looks at the processes and judges. What they found last can
be read at any time, so whoever asks never waits. Knows no server.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import structlog

from nearline.monitor.canaries import CanaryTrouble
from nearline.monitor.judgement import BROKER_SILENT_S, ProcessSeen, StandsStill, judge, judge_canaries
from nearline.monitor.movement import Movement
from nearline.monitor.processes import ProcessWatch
from nearline.monitor.report import Report, standstill
from nearline.monitor.seen import Followed, Look, followed_stages, stages_seen
from schemas.ids import Generation, Micros, Partition
from schemas.stages import contexts_reads, post_vectors_stages
from schemas.times import now_us, to_rfc3339
from schemas.topics import FIRST_CONTEXTS, POSTS, context_names, encode_group
from streams.errors import KafkaRefused, StreamsError
from streams.generations.state import Generations
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.operate.dead_letter_counts import DeadLetterCounts, LetterClass
from streams.operate.known_records import KnownFirstRecords
from streams.operate.lag import StageLag, read_stage_lags
from streams.operate.record_shares import RecordShares
from streams.settings import KafkaSettings

LOOK_EVERY_S: Final = 1.0
LIVE_WITHIN_S: Final = 30.0
"""If the judging thread has not come round for so long, something is wrong with this process."""
_ANSWER_S: Final = 3.0
_FRESH_LOOK_S: Final = 10.0
_PROBE_S: Final = 2.0
_LETTERS_S: Final = 1.0
"""For reading new dead letters; what there was no time for comes at the next look."""

log = structlog.get_logger(__name__)


class Figures(NamedTuple):
    """What the broker said last: the look, with all stages whose generations live, and the end of each partition."""

    look: Look
    followed: list[Followed]
    ends: Offsets


class Monitor:
    """Call `look_at_broker` and `judge` again and again, each from a thread of its own. Any thread may use the rest."""

    def __init__(
        self,
        kafka: KafkaSettings,
        state: Callable[[], Generations | None],
        processes: ProcessWatch,
        stalled_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        post_vectors: bool = False,
    ) -> None:
        """`state` is the newest state of the log of generations; None if it was not read yet. `post_vectors`: whether
        they are written. Their lag is measured and not judged: nobody's answer waits for them."""
        self._reader = OffsetReader(kafka, _ANSWER_S)
        self._known = KnownFirstRecords(self._reader, clock)
        self._shares = RecordShares(kafka, self._reader, clock)
        self._letters = DeadLetterCounts(kafka, self._reader)
        self._letters_fail = False
        self._movement = Movement()
        self._state = state
        self._processes = processes
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._post_vectors = post_vectors
        self._answered_at_s = clock()
        """When the broker has answered last, or this began."""
        self._error: StreamsError | None = None
        """Why the last look failed."""
        self._judged_at_s = clock()
        self._standing: set[tuple[str, str | None]] = set()
        self._canaries: tuple[Callable[[], Mapping[Generation, CanaryTrouble]], float] | None = None
        self.figures: Figures | None = None
        """None until the broker has answered for the first time. Replaced as a whole, as what follows is."""
        self.processes: list[ProcessSeen] = []
        """As they were seen last."""
        self.report = Report(ready=False, broker_up=False, look_age_s=None, standing_still=[])

    @property
    def generations(self) -> Generations:
        """What the log says now; empty if it was not read yet."""
        return self._state() or Generations()

    @property
    def dead_letters(self) -> Mapping[LetterClass, int]:
        """Those that nobody has replayed or dropped."""
        return self._letters.counts

    @property
    def is_alive(self) -> bool:
        return self._clock() - self._judged_at_s < LIVE_WITHIN_S

    def watch_canaries(self, troubles: Callable[[], Mapping[Generation, CanaryTrouble]], every_s: float) -> None:
        """From now on canaries that are lost are judged too. `troubles` must not block, and have the monitor's clock.
        Call it before the others."""
        self._canaries = troubles, every_s

    def behind_s(self, generation: Generation, partition: Partition) -> float:
        """For how long the oldest records wait that a post of this partition has to wait for, from the topic `posts` to
        its vector. Infinite if that is not known now."""
        figures = self.figures
        if figures is None or self._clock() - figures.look.at_s > _FRESH_LOOK_S:
            return math.inf
        state = self._state()
        record = None if state is None else state.records.get(generation)
        version = FIRST_CONTEXTS if record is None else record.contexts
        of_posts = context_names(version).of_kind("post")
        on_the_way = ((contexts_reads(version).group, POSTS), (encode_group(generation), of_posts))
        return sum(figures.look.ages_s.get(group, {}).get(Place(topic, partition), 0.0) for group, topic in on_the_way)

    def look_at_broker(self) -> None:
        """Takes a few seconds at most, if the broker does not answer."""
        try:
            self.figures = self._look()
            self._answered_at_s = self._clock()
            self._error = None
            self._count_letters()
        except StreamsError as error:
            if self._error is None:
                log.warning("the broker did not answer all that was asked", error=str(error))
            self._error = error
            self._movement.interrupted()

    def judge(self) -> None:
        """Looks at the processes, and renews the report."""
        now_s, figures = self._clock(), self.figures
        silent_s = now_s - self._answered_at_s
        state = self._state()
        followed = figures.followed if figures is not None else followed_stages(state or Generations())
        look = None if figures is None else figures.look
        self.processes = self._processes.look()
        seen = stages_seen(followed, self.processes, look)
        error = self._error
        verdicts = judge(seen, silent_s, self._stalled_after_s, "" if error is None else str(error))
        if self._canaries is not None:
            troubles, every_s = self._canaries
            verdicts += judge_canaries(list(troubles().values()), now_s, every_s)
        self._log_changes(verdicts)
        now = now_us()
        # It refuses what is gone, such as the topics of a generation that was retired a moment ago.
        is_up = error is None or isinstance(error, KafkaRefused)
        broker_up = figures is not None and is_up and silent_s < BROKER_SILENT_S
        self.report = Report(
            ready=broker_up and not verdicts,
            broker_up=broker_up,
            look_age_s=None if look is None else now_s - look.at_s,
            standing_still=[standstill(each, _rfc3339(now, each.for_s)) for each in verdicts],
            oldest_age_s={} if look is None else _by_topic(look, 0.0 if error is None else now_s - look.at_s),
        )
        self._judged_at_s = now_s

    def _look(self) -> Figures:
        state = self._state() or Generations()
        followed = followed_stages(state)
        at_s, at_ms = self._clock(), time.time() * 1000
        reads = [each.reads for each in followed]
        reads += post_vectors_stages(state.serving, written=self._post_vectors)
        in_offsets = read_stage_lags(self._reader, reads, _PROBE_S, first_records=self._known.first_records)
        lags = self._shares.in_records(in_offsets)
        ends = self._reader.ends(self._reader.places(spec.name for spec in state.topics))
        self._movement.look(at_s, lags)
        groups = [lag.reads.group for lag in lags]
        look = Look(
            at_s,
            {lag.reads.group: lag for lag in lags},
            {group: self._movement.still(group) for group in groups},
            {lag.reads.group: self._ages_s(lag, at_s, at_ms) for lag in lags},
            frozenset(lag.reads.group for lag in lags if self._is_held_back(lag)),
        )
        return Figures(look, followed, ends)

    def _count_letters(self) -> None:
        """Says nothing of the broker if it fails: stages do not read this topic."""
        try:
            self._letters.read_on(_LETTERS_S)
            self._letters_fail = False
        except StreamsError as error:
            if not self._letters_fail:
                log.warning("the dead letters cannot be counted; it will be tried again", error=str(error))
            self._letters_fail = True

    def _ages_s(self, stage: StageLag, at_s: float, at_ms: float) -> dict[Place, float]:
        """Of a record that cannot be read: since when it has been there, by the looks."""
        waits_since = self._movement.waits_since(stage.reads.group)
        return {
            place: max(0.0, at_s - waits_since[place] if lag.oldest_ms is None else (at_ms - lag.oldest_ms) / 1000)
            for place, lag in stage.partitions.items()
            if lag.records
        }

    def _is_held_back(self, stage: StageLag) -> bool:
        waiting = {place: lag for place, lag in stage.partitions.items() if lag.records}
        if not waiting or any(lag.oldest_ms is not None for lag in waiting.values()):
            return False
        stable = self._reader.stable_ends(waiting)
        return all(stable[place] <= lag.done for place, lag in waiting.items())

    def _log_changes(self, verdicts: list[StandsStill]) -> None:
        """Once when something begins to stand still, and once when it goes on."""
        standing = {(verdict.stage, verdict.generation) for verdict in verdicts}
        for verdict in verdicts:
            if (verdict.stage, verdict.generation) not in self._standing:
                log.warning(verdict.sentence, stage=verdict.stage)
        for stage, generation in self._standing - standing:
            log.info("it goes on", stage=stage, generation=generation)
        self._standing = standing


def _by_topic(look: Look, later_s: float) -> dict[str, dict[str, float]]:
    """`later_s`: for how long nobody could commit anything since this look."""
    oldest: dict[str, dict[str, float]] = {}
    for group, ages_s in look.ages_s.items():
        for place, age_s in ages_s.items():
            topics = oldest.setdefault(group, {})
            topics[place.topic] = max(age_s + later_s, topics.get(place.topic, 0.0))
    return oldest


def _rfc3339(now: Micros, ago_s: float) -> str:
    """To the second."""
    return to_rfc3339(Micros((now - int(ago_s * 1_000_000)) // 1_000_000 * 1_000_000))
