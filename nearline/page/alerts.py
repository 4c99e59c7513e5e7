"""Which of Prometheus' alerts fire by what the monitor knows itself: the objectives of `deploy/slo.toml` over the last
hour, and the monitor's judgement. Pure.

An alert has the name and the page of the rule in `nearline/alerts/rules.py`. Rules over more than an hour, and those of
figures that the monitor does not read, only Prometheus has.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from nearline.alerts.objectives import Objectives, Severity
from nearline.monitor.judgement import BROKER, CANARY
from nearline.monitor.report import Report
from nearline.page.history import HOUR_S, Fresh
from schemas.times import duration_s

_PAGES: Final = {"Freshness": "freshness", "Deletes": "deletes"}


class Alert(Struct, frozen=True):
    """`page`: the name of its runbook, without what the objectives have as `runbooks`."""

    name: str
    severity: Severity
    sentence: str
    page: str


class _Counts(NamedTuple):
    """`long`, `short`: over the two windows, how many there were, and how many of them were in time."""

    title: str
    what: str
    share: float
    long: tuple[int, ...]
    short: tuple[int, ...]

    def burn(self, rate: float) -> bool:
        """Whether the budget burns at such a rate over both windows."""
        bound = rate * (1 - self.share)
        return all(number > 0 and (number - in_time) / number > bound for number, in_time in (self.long, self.short))


def firing(
    objectives: Objectives,
    report: Report,
    fresh: Callable[[float], Fresh],
    waits_s: Sequence[tuple[str, float]],
    *,
    answers_whole: bool | None,
    retriever_away: bool,
) -> list[Alert]:
    """`fresh`: of the events of so many last seconds. `waits_s`: of each stage that every event passes, the age of its
    oldest record. `answers_whole`: None if that is not known. `retriever_away`: there is one, and it does not
    answer."""
    alerts = [*_standing(objectives, report), *_waiting(objectives, waits_s), *_burning(objectives, fresh)]
    if answers_whole is False:
        alerts.append(Alert("NearlineAnswersPartial", "page", "no retriever can give whole answers", "retrieval"))
    if retriever_away:
        alerts.append(Alert("NearlineRetrieverAway", "page", "no retriever answers the monitor", "retrieval"))
    return sorted(alerts, key=lambda alert: alert.severity)


def _standing(objectives: Objectives, report: Report) -> Iterator[Alert]:
    for each in report.standing_still:
        if each.stage == BROKER:
            yield Alert("NearlineBrokerAway", "page", each.sentence, "broker-away")
        elif each.stage == CANARY:
            yield Alert("NearlineCanaryLost", "page", each.sentence, "canary-lost")
        elif each.for_s > objectives.limits.stands_still_s:
            yield Alert("NearlineStageStandsStill", "page", each.sentence, "stage-stands-still")


def _waiting(objectives: Objectives, waits_s: Sequence[tuple[str, float]]) -> Iterator[Alert]:
    for stage, age_s in waits_s:
        if age_s > objectives.limits.waits_s:
            sentence = f"the oldest event has waited {age_s:.0f} s for the stage {stage}"
            yield Alert("NearlineEventsWait", "page", sentence, "freshness")


def _burning(objectives: Objectives, fresh: Callable[[float], Fresh]) -> Iterator[Alert]:
    promise = objectives.freshness
    for burn in objectives.burn:
        if duration_s(burn.long) <= HOUR_S:
            long, short = fresh(duration_s(burn.long)), fresh(duration_s(burn.short))
            events = _Counts("Freshness", "events", promise.events, long[:2], short[:2])
            deletes = _Counts("Deletes", "deletes", promise.deletes, long[2:], short[2:])
            for counts in (events, deletes):
                if counts.long[0] >= objectives.limits.at_least and counts.burn(burn.rate):
                    number, in_time = counts.long
                    what = f"{number - in_time} of {number} {counts.what} of the last {burn.long}"
                    sentence = f"{what} took longer than {promise.within_s:g} s"
                    yield Alert(
                        f"Nearline{counts.title}Burns{burn.long}", burn.severity, sentence, _PAGES[counts.title]
                    )
