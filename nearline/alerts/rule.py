"""A rule of Prometheus, as data."""

from typing import NamedTuple

from nearline.alerts.objectives import Severity


class Recording(NamedTuple):
    record: str
    expr: str


class Alert(NamedTuple):
    """`holds_for`: it fires when the expression has held for so long. `page`: the runbook's name."""

    alert: str
    expr: str
    holds_for: str
    severity: Severity
    summary: str
    page: str


class Group(NamedTuple):
    name: str
    rules: list[Recording | Alert]
