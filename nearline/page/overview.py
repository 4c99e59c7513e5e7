"""What the page shows, as JSON: the answer of `GET /v1/overview`. docs/operators-page.md explains each field.

Puts together what was found out already: nothing here waits for anybody.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from nearline.alerts.objectives import Objectives
from nearline.ask.standing import standing_of
from nearline.ask.status import TiersSeen, while_held_up
from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.monitor import Figures, Monitor
from nearline.monitor.report import Report
from nearline.page.access import Access
from nearline.page.alerts import Alert, firing
from nearline.page.history import HOUR_S, Columns, History
from nearline.settings.process_names import parse
from schemas.api import FreshnessStatus
from schemas.generations import GenerationRecord
from schemas.ids import Generation
from schemas.times import now_us, to_micros, to_rfc3339
from streams.generations.progress import Progress
from streams.generations.state import Generations


class FreshnessShown(Struct, frozen=True):
    """Seconds from an event to its effect being searchable, of the last minutes, as in a status. `hour`: the numbers of
    `Fresh`, of the last hour at most."""

    p50_s: float | None
    p99_s: float | None
    newest_age_s: float | None
    hour: dict[str, int]


class StageShown(Struct, frozen=True):
    """`of`: the generation or the version of the contexts. `lag`: records."""

    stage: str
    of: str | None
    state: str | None
    lag: int | None
    oldest_age_s: float | None
    stands_still: bool


class TiersShown(Struct, frozen=True):
    cold_posts: int | None
    cold_members: int | None
    hot_posts: int | None
    hot_caught_up: bool | None


class GenerationShown(Struct, frozen=True):
    """`canary_share`: of the members whom it answers as a canary. `share` of its building that is done."""

    id: str
    state: str
    place: str | None
    since: str
    package: str
    canary_share: float | None
    share: float | None
    left_s: float | None
    gate_holds: bool | None


class ProcessShown(Struct, frozen=True):
    name: str
    pid: int | None
    state: str
    for_s: float
    restarts: int


class LettersShown(Struct, frozen=True):
    stage: str
    cause: str
    letters: int


class Promise(Struct, frozen=True):
    within_s: float
    events: float
    deletes: float


class Overview(Struct, frozen=True):
    at: str
    generation: str | None
    ready: bool | None
    report: Report
    collected_age_s: float | None
    promise: Promise
    freshness: FreshnessShown
    stages: list[StageShown]
    per_s: dict[str, float]
    tiers: TiersShown
    generations: list[GenerationShown]
    can_roll_back: bool
    processes: list[ProcessShown]
    dead_letters: list[LettersShown]
    alerts: list[Alert]
    runbooks: str
    problems: list[str]
    acts_allowed: bool
    no_acts_because: str | None
    question_needs_key: bool
    history: Columns


class Collected(NamedTuple):
    """What was asked of the processes last, at `at_s` of the monitor's clock."""

    at_s: float
    tiers: TiersSeen | None
    per_s: Mapping[str, float]
    progresses: Mapping[Generation, Progress | None]
    problems: list[str]


def stages_shown(figures: Figures | None, report: Report) -> list[StageShown]:
    """While the broker is away nobody can move, so what waits gets older. The broker, a canary and the retriever are no
    stages that read, and are in the report alone."""
    if figures is None:
        return []
    look, standing = figures.look, standing_of(report.standing_still)
    more_s = 0.0 if report.broker_up else report.look_age_s or 0.0
    shown = []
    for each in figures.followed:
        lag, ages_s = look.lags.get(each.reads.group), look.ages_s.get(each.reads.group, {})
        oldest_s = max(ages_s.values(), default=None)
        shown.append(
            StageShown(
                each.reads.stage,
                each.of,
                None if each.record is None else each.record.state,
                None if lag is None else sum(partition.records for partition in lag.partitions.values()),
                None if oldest_s is None else oldest_s + more_s,
                (each.reads.stage, each.of) in standing.stages,
            )
        )
    return shown


def overview(  # noqa: PLR0917
    monitor: Monitor,
    collected: Collected | None,
    history: History,
    objectives: Objectives,
    now_s: float,
    since_s: float,
    *,
    access: Access,
) -> Overview:
    """`now_s`: by the monitor's clock. `since_s`: from when on the history is wanted."""
    report, figures, state = monitor.report, monitor.figures, monitor.generations
    serving = None if state.serving is None else state.serving.id
    stages = stages_shown(figures, report)
    tiers = None if collected is None else collected.tiers
    answers_whole, promise = None if tiers is None else tiers.ready, objectives.freshness
    # One that is being built, or kept, holds up nobody.
    waits_s = [
        (each.stage, each.oldest_age_s or 0.0)
        for each in stages
        if each.stage in ("contexts", "encode") and each.of in (None, serving)
    ]
    return Overview(
        at=to_rfc3339(now_us()),
        generation=serving,
        ready=report.ready and answers_whole,
        report=report,
        collected_age_s=None if collected is None else now_s - collected.at_s,
        promise=Promise(promise.within_s, promise.events, promise.deletes),
        freshness=_freshness(collected, report, serving, now_s, history.fresh(HOUR_S)._asdict()),
        stages=stages,
        per_s={} if collected is None else dict(collected.per_s),
        tiers=_tiers(tiers),
        generations=_generations(state, {} if collected is None else collected.progresses),
        can_roll_back=_can_roll_back(state),
        processes=_processes(monitor.processes),
        dead_letters=[LettersShown(of.stage, of.kind, n) for of, n in sorted(monitor.dead_letters.items())],
        alerts=firing(
            objectives,
            report,
            history.fresh,
            waits_s,
            answers_whole=answers_whole,
            retriever_away=tiers is not None and answers_whole is None and _has_retriever(monitor.processes),
        ),
        runbooks=objectives.runbooks,
        problems=[] if collected is None else collected.problems,
        acts_allowed=access.no_acts_because is None,
        no_acts_because=access.no_acts_because,
        question_needs_key=access.key is not None,
        history=history.columns(since_s),
    )


def _freshness(
    collected: Collected | None, report: Report, serving: str | None, now_s: float, hour: dict[str, int]
) -> FreshnessShown:
    """What cannot be measured while a stage stands still is at least as old as the newest success."""
    if collected is None or collected.tiers is None:
        return FreshnessShown(None, None, None, hour)
    measured = collected.tiers.freshness
    age_s = None if measured.newest_age_s is None else measured.newest_age_s + now_s - collected.at_s
    fresh = FreshnessStatus(p50=measured.p50, p99=measured.p99, newest_age_s=age_s)
    if standing_of(report.standing_still).holds_up(serving):
        fresh = while_held_up(fresh)
    return FreshnessShown(fresh.p50, fresh.p99, fresh.newest_age_s, hour)


def _tiers(seen: TiersSeen | None) -> TiersShown:
    if seen is None:
        return TiersShown(None, None, None, None)
    return TiersShown(seen.tiers.cold.posts, seen.tiers.cold.members, seen.tiers.hot.posts, seen.hot_caught_up)


def _generations(state: Generations, progresses: Mapping[Generation, Progress | None]) -> list[GenerationShown]:
    canary = None if state.pointer is None else state.pointer.canary
    shares = {} if canary is None else {canary.generation: canary.share}
    return [_generation(record, shares.get(record.id), progresses.get(record.id)) for record in state.live]


def _generation(record: GenerationRecord, canary_share: float | None, progress: Progress | None) -> GenerationShown:
    return GenerationShown(
        record.id,
        record.state,
        record.place,
        to_rfc3339(to_micros(record.since.replace(microsecond=0))),
        str(record.package),
        canary_share,
        None if progress is None else progress.share,
        None if progress is None else progress.left_s,
        None if record.gate is None else record.gate.holds,
    )


def _can_roll_back(state: Generations) -> bool:
    pointer = state.pointer
    return pointer is not None and (
        pointer.canary is not None or (pointer.kept is not None and not pointer.rolled_back)
    )


def _has_retriever(processes: Iterable[ProcessSeen]) -> bool:
    """Of its own. Where others run it, it may not be known here."""
    return any(parse(each.name).stage == "serve" for each in processes)


def _processes(processes: Iterable[ProcessSeen]) -> list[ProcessShown]:
    return [ProcessShown(each.name, each.pid, each.state, each.for_s, each.restarts) for each in processes]
