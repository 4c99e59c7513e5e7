"""The status of an instance: processes, lag of every stage, tiers, dead letters, freshness.

Asks each part and puts the answers together. Where a part does not answer in time its figures are None and `problems`
has a sentence about it. A status always comes. Knows nothing of how the parts are reached; `status_sources.py` does.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from threading import Thread
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from indexer.freshness import Freshness
from indexer.tiers import ColdReader
from nearline.ask.hot_reports import HotReport
from nearline.ask.standing import Standing
from schemas.api import (
    ColdStatus,
    FreshnessStatus,
    HotStatus,
    ProcessStatus,
    StageStatus,
    StatusResponse,
    TiersStatus,
)
from schemas.ids import Generation, Offset, Partition
from schemas.printable import printable
from schemas.stages import StageReads, all_stages, post_vectors_stages
from streams.errors import GenerationsDamaged
from streams.generations.state import Generations
from streams.kafka import deleted_unread
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.operate import dead_letter_box
from streams.operate.dead_letter_box import LetterCount
from streams.operate.lag import Lag, StageLag, read_stage_lags, topic_lags
from streams.operate.record_shares import RecordShares
from streams.settings import KafkaSettings

BUDGET_S: Final = 4.0
"""For the whole status. `nearline status` promises 5 s, and needs some of them to start and to print."""

_HOT_S: Final = 2.5
_KAFKA_CALL_S: Final = 1.5
_PROBE_S: Final = 2.0
_RECORDS_S: Final = 1.0
"""For counting the records among the offsets of all lags; half of it for reading some of them."""
_SPARE_S: Final = 0.5
"""Of the budget, for what comes after that."""
_LIVE_S: Final = 1.0
"""For the log of the generations. Without it only the stages of the serving one are shown."""
_COUNT_S: Final = 1.0
"""For the dead letters, which are counted one by one."""
_CLOSE_S: Final = 0.2
"""For closing the clients that counted them."""
_DAMAGE_CHARS: Final = 1_000

_T = TypeVar("_T")


@runtime_checkable
class KnowsFreshness(Protocol):
    """A cold tier that measures freshness. A Qdrant server does not."""

    def freshness(self) -> Freshness: ...


class Sources(NamedTuple):
    """Where each part of the status comes from. Each function is called in its own thread, may block, and may raise.

    `generation` is None where only the retriever knows it.
    """

    processes: Callable[[], list[ProcessStatus]]
    standing: Callable[[], Standing]
    generation: Generation | None
    post_vectors: bool
    """Whether they are written."""
    kafka: Callable[[], KafkaSettings]
    generations: Callable[[], Generations]
    """What the log of the generations says."""
    hot: Callable[[], HotReport]
    cold: Callable[[], AbstractContextManager[ColdReader]]
    standing_s: float = BUDGET_S
    """How long what stands still is waited for."""


class _Log(NamedTuple):
    """What the log of the generations says. `damages`: a sentence for each record that is refused."""

    state: Generations
    damages: list[str]


class _Cold(NamedTuple):
    status: ColdStatus
    freshness: FreshnessStatus | None


class TiersSeen(NamedTuple):
    """What the tiers say of themselves; what did not answer is None. `ready`: whole answers are possible; None if no
    retriever says so or denies it. The freshness is as it was measured, whether something is held up or not. `problems`
    has a sentence for what is missing."""

    tiers: TiersStatus
    freshness: FreshnessStatus
    ready: bool | None
    hot_caught_up: bool | None
    problems: list[str]


class _Question(Generic[_T]):
    """Asks one part in a thread, so that a part that blocks does not hold up the others."""

    def __init__(self, name: str, ask: Callable[[], _T]) -> None:
        self._name = name
        self._answers: list[_T] = []
        self._problem = ""
        self._thread = Thread(target=self._run, args=(ask,), name=f"status-{name}", daemon=True)
        self._thread.start()

    def answer(self, deadline: float, problems: list[str]) -> _T | None:
        """The answer; None, with a sentence added to `problems`, where there is none by the deadline."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._answers:
            return self._answers[0]
        problems.append(f"{self._name}: {self._problem or 'no answer in time'}")
        return None

    def _run(self, ask: Callable[[], _T]) -> None:
        try:
            self._answers.append(ask())
        except Exception as error:  # whatever goes wrong with one part, the others are still reported
            self._problem = str(error)


def read_status(sources: Sources, budget_s: float = BUDGET_S) -> StatusResponse:
    """Returns within `budget_s`, and within about a second where the monitor knows that the broker does not answer.
    Raises nothing when a part fails."""
    problems: list[str] = []
    deadline = time.monotonic() + budget_s
    hot_deadline = time.monotonic() + min(_HOT_S, budget_s)
    standing_deadline = time.monotonic() + min(sources.standing_s, budget_s)
    asked_hot = _Question("retriever", sources.hot)
    asked_cold = _Question("cold tier", lambda: _ask_cold(sources.cold))
    asked_processes = _Question("processes", sources.processes)
    asked_standing = _Question("monitor", sources.standing)
    asked_log = _Question("generations", lambda: _ask_log(sources.generations))
    live_deadline = time.monotonic() + min(_LIVE_S, budget_s)

    def hot_report() -> HotReport | None:
        return asked_hot.answer(hot_deadline, [])

    # Without an instance in the data folder only the retriever knows the generation, and the broker is asked after it.
    generation = sources.generation or _generation(hot_report())
    # What stands still matters most, and a busy machine may take seconds to say it.
    standing = asked_standing.answer(standing_deadline, problems) or Standing()
    said = None if standing.broker_is_silent else asked_log.answer(live_deadline, [])
    state, damages = said or _Log(Generations(), [])
    problems += damages
    reads = _reads(generation, state) + post_vectors_stages(state.serving, written=sources.post_vectors)
    lags = None
    if standing.broker_is_silent:
        problems.append("broker: not asked, because it does not answer the monitor")
    else:
        asked_lags = _Question("broker", lambda: _ask_lags(sources.kafka(), reads, hot_report))
        lags = asked_lags.answer(deadline, problems)
    # The lags matter more, so their records and the dead letters are counted after them and separately.
    letters = None
    if lags is not None:
        lags = _in_records(sources.kafka, lags, deadline)
        letters = _ask_letters(sources.kafka, deadline, problems)
    hot = asked_hot.answer(hot_deadline, problems)
    processes = asked_processes.answer(deadline, problems) or []
    cold = asked_cold.answer(deadline, problems)
    if hot is not None:
        problems += hot.readiness.problems
    of_topics = topic_lags(lags) if lags is not None else []
    problems += [deleted_unread.sentence(lag.group, lag.topic, lag.deleted) for lag in of_topics if lag.deleted]
    problems += standing.problems
    stages = [_stage(lag) for lag in of_topics] if lags is not None else _unknown_stages(reads)
    return StatusResponse(
        ready=hot is not None and hot.readiness.ready and not standing.sentences,
        generation=generation,
        processes=processes,
        stages=[_with_age(stage, standing) for stage in stages],
        tiers=_tiers(cold, hot),
        dead_letters=letters,
        freshness_s=_freshness(cold, hot, is_held_up=standing.holds_up(generation)),
        problems=problems,
        standing_still=list(standing.sentences),
    )


def read_tiers(
    hot: Callable[[], HotReport], cold: Callable[[], AbstractContextManager[ColdReader]], budget_s: float
) -> TiersSeen:
    """The same as in a status, of the tiers alone. Returns within `budget_s`. Raises nothing."""
    problems: list[str] = []
    deadline = time.monotonic() + budget_s
    asked_hot, asked_cold = _Question("retriever", hot), _Question("cold tier", lambda: _ask_cold(cold))
    report, cold_seen = asked_hot.answer(deadline, problems), asked_cold.answer(deadline, problems)
    problems += [] if report is None else report.readiness.problems
    return TiersSeen(
        _tiers(cold_seen, report),
        _freshness(cold_seen, report, is_held_up=False),
        None if report is None else report.readiness.ready,
        None if report is None else report.positions.caught_up,
        problems,
    )


def _reads(generation: Generation | None, state: Generations) -> list[StageReads]:
    others = [record.id for record in state.live if record.id != generation]
    contexts = {record.id: record.contexts for record in state.live}
    return all_stages(generation, others, contexts, state.context_versions)


def _ask_log(generations: Callable[[], Generations]) -> _Log:
    try:
        state = generations()
    except GenerationsDamaged as error:
        return _Log(Generations(), [printable(str(error), _DAMAGE_CHARS)])
    return _Log(state, [printable(str(damage), _DAMAGE_CHARS) for damage in state.damages])


def _generation(hot: HotReport | None) -> Generation | None:
    return Generation(hot.positions.generation) if hot is not None else None


def _ask_lags(kafka: KafkaSettings, reads: list[StageReads], hot: Callable[[], HotReport | None]) -> list[StageLag]:
    with closing(OffsetReader(kafka, _KAFKA_CALL_S)) as reader:
        return read_stage_lags(reader, reads, _PROBE_S, lambda: _hot_offsets(hot(), reads))


def _in_records(kafka: Callable[[], KafkaSettings], in_offsets: list[StageLag], deadline: float) -> list[StageLag]:
    """Counted as the monitor counts them. If there is no time for that, or no answer, they stay in offsets, which are
    at least as many."""
    if not any(lag.records for stage in in_offsets for lag in stage.partitions.values()):
        return in_offsets

    def count() -> list[StageLag]:
        with closing(OffsetReader(kafka(), _KAFKA_CALL_S)) as reader, closing(RecordShares(kafka(), reader)) as shares:
            return shares.in_records(in_offsets, _RECORDS_S / 2)

    counted = _Question("records", count).answer(min(deadline - _SPARE_S, time.monotonic() + _RECORDS_S), [])
    return in_offsets if counted is None else counted


def _ask_letters(kafka: Callable[[], KafkaSettings], deadline: float, problems: list[str]) -> int | None:
    within_s = max(0.0, min(_COUNT_S, deadline - time.monotonic() - _CLOSE_S))

    def ask() -> LetterCount:
        with closing(OffsetReader(kafka(), _KAFKA_CALL_S)) as reader:
            return dead_letter_box.count(kafka(), reader, within_s)

    count = _Question("dead letters", ask).answer(deadline, problems)
    if count is None:
        return None
    if not count.exact:
        problems.append(f"dead letters: at most {count.number}, there was no time to count them")
    return count.number


def _hot_offsets(hot: HotReport | None, reads: list[StageReads]) -> Offsets | None:
    """None if they are unknown, also where the retriever still answers from another generation."""
    if hot is None or all(hot.positions.topic not in read.topics for read in reads if not read.group):
        return None
    return {Place(hot.positions.topic, Partition(at)): Offset(offset) for at, offset in hot.positions.positions.items()}


def _stage(lag: Lag) -> StageStatus:
    age_s = None if lag.oldest_ms is None else max(0.0, time.time() - lag.oldest_ms / 1000)
    return StageStatus(
        stage=lag.stage,
        group=lag.group,
        topic=lag.topic,
        lag=lag.records,
        oldest_age_s=age_s,
        deleted_unread={int(partition): number for partition, number in lag.deleted.items()},
    )


def _with_age(stage: StageStatus, standing: Standing) -> StageStatus:
    """Where the oldest record cannot be read now, at least the age that the monitor knows; also where the broker says
    nothing of the lag."""
    if stage.lag == 0 or stage.oldest_age_s is not None:
        return stage
    age_s = standing.oldest_age_s.get(stage.group, {}).get(stage.topic)
    return stage.model_copy(update={"oldest_age_s": age_s})


def _unknown_stages(reads: list[StageReads]) -> list[StageStatus]:
    return [
        StageStatus(stage=read.stage, group=read.group, topic=topic, lag=None, oldest_age_s=None)
        for read in reads
        for topic in read.topics
    ]


def _ask_cold(cold: Callable[[], AbstractContextManager[ColdReader]]) -> _Cold:
    with cold() as tier:
        status = ColdStatus(posts=tier.count("post"), members=tier.count("member"))
        freshness = tier.freshness() if isinstance(tier, KnowsFreshness) else None
    if freshness is None:
        return _Cold(status, None)
    return _Cold(status, FreshnessStatus(p50=freshness.p50, p99=freshness.p99, newest_age_s=freshness.newest_age_s))


def _tiers(cold: _Cold | None, hot: HotReport | None) -> TiersStatus:
    return TiersStatus(
        cold=cold.status if cold is not None else ColdStatus(posts=None, members=None),
        hot=HotStatus(posts=hot.positions.posts if hot is not None else None),
    )


def _freshness(cold: _Cold | None, hot: HotReport | None, *, is_held_up: bool) -> FreshnessStatus:
    """The cold tier's freshness, because every change ends there. The hot tier's where the cold one has none."""
    freshness = FreshnessStatus(p50=None, p99=None) if hot is None else hot.positions.freshness_s
    if cold is not None and cold.freshness is not None:
        freshness = cold.freshness
    return while_held_up(freshness) if is_held_up else freshness


def while_held_up(freshness: FreshnessStatus) -> FreshnessStatus:
    """While nothing becomes searchable there are no new samples, and the percentiles would stay as they were."""
    newest_age_s = freshness.newest_age_s
    if newest_age_s is None:
        return freshness
    p50, p99 = (max(newest_age_s, measured or 0.0) for measured in (freshness.p50, freshness.p99))
    return freshness.model_copy(update={"p50": p50, "p99": p99})
