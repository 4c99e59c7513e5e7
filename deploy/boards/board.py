"""What the boards are made of: numbers and lines about queries, in rows. Knows no metric."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, StackingMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

RATE: Final = "$__rate_interval"
"""A window that Grafana makes of the width of the picture and of how often Prometheus asks."""
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_TAG: Final = "nearline"


class Query(NamedTuple):
    """In PromQL. `legend` names a series by its labels, such as {{stage}}."""

    expr: str
    legend: str = ""


class Number(NamedTuple):
    """One value as it is now. `unit` is Grafana's. From `bad_from` on it is red; below it if `bad_below`."""

    title: str
    unit: str
    expr: str
    says: str
    bad_from: float | None = None
    bad_below: float | None = None


class Lines(NamedTuple):
    """Over time."""

    title: str
    unit: str
    queries: Sequence[Query]
    says: str
    stacked: bool = False


class Row(NamedTuple):
    title: str
    panels: Sequence[Number | Lines]


class Board(NamedTuple):
    """`name` is that of the file, and the end of its address in Grafana."""

    name: str
    title: str
    says: str
    rows: Sequence[Row]


def built(board: Board) -> Dashboard:
    made = (
        dashboard.Dashboard(f"nearline: {board.title}")
        .uid(f"nearline-{board.name}")
        .description(board.says)
        .tags([_TAG])
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(dashboard.DashboardLink("nearline").type("dashboards").tags([_TAG]).include_vars(True).keep_time(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for row in board.rows:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_number(panel) if isinstance(panel, Number) else _lines(panel))
    return made.build()


def _number(number: Number) -> stat.Panel:
    return (
        stat.Panel()
        .title(number.title)
        .description(number.says)
        .datasource(_SOURCE)
        .unit(number.unit)
        .span(4)
        .height(4)
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.AREA)
        .thresholds(_thresholds(number))
        .with_target(prometheus.Dataquery().expr(number.expr).ref_id("A"))
    )


def _thresholds(number: Number) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if number.bad_from is not None:
        steps.append(Threshold(value=number.bad_from, color="red"))
    if number.bad_below is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=number.bad_below, color="green")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(lines: Lines) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(lines.title)
        .description(lines.says)
        .datasource(_SOURCE)
        .unit(lines.unit)
        .span(8)
        .height(8)
        .min(0)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
    )
    if lines.stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for letter, query in zip("ABCDEFGH", lines.queries, strict=False):
        panel.with_target(prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter))
    return panel


def quantile(share: float, metric: str, by: str = "", window: str = RATE) -> str:
    """Of a histogram, without its suffix. `by`: labels, each with a comma before it; `metric` may have a selector."""
    name, brace, selector = metric.partition("{")
    return f"histogram_quantile({share:g}, sum by (le{by}) (rate({name}_bucket{brace}{selector}[{window}])))"


def rate(metric: str, by: str = "") -> str:
    """A second, of a counter, summed but for these labels. `metric` may have a selector."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(rate({metric}[{RATE}]))"


def refused_and_late() -> list[Query]:
    """Requests that get no answer."""
    return [
        Query(rate("nearline_refused_requests_total"), "refused"),
        Query(rate("nearline_late_requests_total"), "late"),
    ]


def or_zero(expr: str) -> str:
    """Of something that has no series until it happens for the first time."""
    return f"{expr} or vector(0)"
