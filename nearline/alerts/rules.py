"""The rules of Prometheus that follow from the objectives: how quickly their budgets burn. With those of `symptoms.py`
they are all rules there are. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from nearline.alerts.objectives import Burn, Limits, Objectives
from nearline.alerts.rule import Alert, Group, Recording
from nearline.alerts.symptoms import symptoms


class _Indicator(NamedTuple):
    """What an objective is about, as queries for a window, which stands in them as WINDOW."""

    name: str
    title: str
    good: str
    all: str
    share: float
    summary: str


def groups(objectives: Objectives) -> list[Group]:
    indicators = _indicators(objectives)
    recordings: list[Recording | Alert] = [
        recording for indicator in indicators for recording in _recordings(indicator, objectives.burn)
    ]
    burns: list[Recording | Alert] = [
        _burn_alert(indicator, burn, objectives.limits) for indicator in indicators for burn in objectives.burn
    ]
    return [
        Group("nearline_objectives", recordings),
        Group("nearline_budgets", burns),
        Group("nearline_symptoms", [*symptoms(objectives.limits)]),
    ]


def _indicators(objectives: Objectives) -> list[_Indicator]:
    freshness = objectives.freshness
    le = f'le="{float(freshness.within_s)}"'

    def fresh(name: str, title: str, kinds: str, share: float, what: str) -> _Indicator:
        return _Indicator(
            name,
            title,
            f'sum(rate(nearline_freshness_seconds_bucket{{tier="hot"{kinds},{le}}}[WINDOW]))',
            f'sum(rate(nearline_freshness_seconds_count{{tier="hot"{kinds}}}[WINDOW]))',
            share,
            f"{what} take longer than {freshness.within_s:g} s until they can be found",
        )

    return [
        fresh("freshness", "Freshness", "", freshness.events, "new and changed posts and members"),
        fresh("deletes", "Deletes", ',kind="delete"', freshness.deletes, "deletes"),
        _Indicator(
            "retrieval",
            "Retrieval",
            'sum(rate(nearline_retrieve_answers_total{outcome="whole"}[WINDOW]))',
            "((sum(rate(nearline_retrieve_answers_total[WINDOW])) or vector(0)) "
            "+ sum(rate(nearline_refused_requests_total[WINDOW])) "
            "+ sum(rate(nearline_late_requests_total[WINDOW])))",
            objectives.retrieval.answered,
            "questions get partial answers, late ones, or none",
        ),
    ]


def _recordings(indicator: _Indicator, burns: list[Burn]) -> Iterator[Recording]:
    """The share that fails, once for each window."""
    for window in dict.fromkeys(window for burn in burns for window in (burn.short, burn.long)):
        good, all_ = (query.replace("WINDOW", window) for query in (indicator.good, indicator.all))
        yield Recording(_failed(indicator, window), f"1 - (({good}) or 0 * {all_}) / {all_}")


def _failed(indicator: _Indicator, window: str) -> str:
    return f"nearline:{indicator.name}_failed:share{window}"


def _burn_alert(indicator: _Indicator, burn: Burn, limits: Limits) -> Alert:
    bound = f"{burn.rate:g} * {1 - indicator.share:.6g}"
    number = indicator.all.replace("rate(", "increase(").replace("WINDOW", burn.long)
    expr = (
        f"{_failed(indicator, burn.long)} > {bound} and {_failed(indicator, burn.short)} > {bound} "
        f"and {number} >= {limits.at_least}"
    )
    return Alert(
        f"Nearline{indicator.title}Burns{burn.long}",
        expr,
        "0s",
        burn.severity,
        f"{indicator.summary}: the budget of 30 days burns more than {burn.rate:g} times as quickly as it may",
        indicator.name,
    )
