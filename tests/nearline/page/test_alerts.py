"""Which alerts the page shows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nearline.alerts.objectives import read_objectives
from nearline.alerts.rules import Alert as Rule
from nearline.alerts.rules import groups
from nearline.monitor.report import Report, Standstill
from nearline.page.alerts import Alert, firing
from nearline.page.history import Fresh

OBJECTIVES = read_objectives()
GOOD = Report(ready=True, broker_up=True, look_age_s=1.0, standing_still=[])
RUNBOOKS = Path(__file__).parent.parent.parent.parent / "docs" / "runbooks"


def report(*stages: str, for_s: float = 60.0) -> Report:
    standing = [Standstill(stage, None, "", for_s, "", "", "", f"{stage} stands still") for stage in stages]
    return Report(ready=False, broker_up=True, look_age_s=1.0, standing_still=standing)


def fired(
    said: Report = GOOD,
    fresh: Callable[[float], Fresh] = lambda _: Fresh(),
    waits_s: tuple[tuple[str, float], ...] = (),
    answers_whole: bool | None = True,
    *,
    retriever_away: bool = False,
) -> list[Alert]:
    alerts = firing(OBJECTIVES, said, fresh, waits_s, answers_whole=answers_whole, retriever_away=retriever_away)
    rules = {rule.alert: rule for group in groups(OBJECTIVES) for rule in group.rules if isinstance(rule, Rule)}
    for alert in alerts:
        rule = rules[alert.name]
        assert (rule.page, rule.severity) == (alert.page, alert.severity), "the same as in Prometheus"
        assert (RUNBOOKS / f"{alert.page}.md").exists()
    return alerts


def names(alerts: list[Alert]) -> list[str]:
    return [alert.name for alert in alerts]


def test_where_all_is_well_nothing_fires() -> None:
    assert fired(fresh=lambda _: Fresh(1000, 1000, 10, 10), waits_s=(("contexts", 3.0),)) == []
    assert fired(answers_whole=None) == [], "what is not known yet is no alert"


def test_what_stands_still() -> None:
    assert names(fired(report("broker", "encode", "canary"))) == [
        "NearlineBrokerAway",
        "NearlineStageStandsStill",
        "NearlineCanaryLost",
    ]
    assert fired(report("encode", for_s=7.0)) == [], "the page says it, and nobody is woken yet"
    assert names(fired(waits_s=(("contexts", 10.0), ("encode", 61.0)))) == ["NearlineEventsWait"]
    assert names(fired(answers_whole=False)) == ["NearlineAnswersPartial"]
    assert names(fired(answers_whole=None, retriever_away=True)) == ["NearlineRetrieverAway"]


@pytest.mark.parametrize(
    ("hour", "now", "expected"),
    [
        (Fresh(1000, 850), Fresh(100, 85), ["NearlineFreshnessBurns1h"]),
        (Fresh(1000, 850), Fresh(100, 90), []),  # it is over
        (Fresh(1000, 900), Fresh(100, 0), []),  # it has not gone on for long enough
        (Fresh(99, 0), Fresh(9, 0), []),  # too few to say
        (Fresh(1000, 1000, 200, 190), Fresh(100, 100, 20, 19), ["NearlineDeletesBurns1h"]),
        (Fresh(1000, 0), Fresh(), []),
    ],
)
def test_budgets_burn_over_both_windows(hour: Fresh, now: Fresh, expected: list[str]) -> None:
    assert names(fired(fresh=lambda within_s: hour if within_s > 600 else now)) == expected
