"""The monitor's figures for Prometheus: lag under the names that the exporters of Kafka have, and our own judgement.

Series of groups and topics that are gone disappear, because each answer is made anew of what was seen last.
"""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nearline.monitor.generation_metrics import generation_metrics
from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.monitor import Figures, Monitor
from nearline.monitor.report import Report
from nearline.monitor.stage_metrics import stage_metrics
from streams.operate.dead_letter_counts import LetterClass

_OF_GROUP: Final = ("consumergroup", "topic", "partition")


class MonitorMetrics(Collector):
    """Computes its values when Prometheus asks for them, without asking the broker."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterable[Metric]:
        figures, report = self._monitor.figures, self._monitor.report
        yield _BUILD
        yield from _of_processes(self._monitor.processes)
        yield from generation_metrics(self._monitor.generations)
        yield _of_letters(self._monitor.dead_letters)
        yield GaugeMetricFamily(
            "nearline_monitor_broker_up",
            "1 while the broker answers",
            report.broker_up,
        )
        if figures is not None:
            yield from _of_look(figures)
            yield from stage_metrics(figures.look, figures.followed)
            yield _standing_still(figures, report)
        if report.look_age_s is not None:
            yield GaugeMetricFamily(
                "nearline_monitor_look_age_seconds",
                "How long ago the broker was asked for the lags",
                report.look_age_s,
            )


def _of_processes(processes: Iterable[ProcessSeen]) -> Iterable[Metric]:
    up = GaugeMetricFamily(
        "nearline_process_up",
        "1 while the process runs; 0 while it is gone, or stopped by a signal",
        labels=["process"],
    )
    restarts = CounterMetricFamily(
        "nearline_process_restarts", "How often nearline up has started the process again", labels=["process"]
    )
    for process in processes:
        up.add_metric([process.name], process.state == "running")
        restarts.add_metric([process.name], process.restarts)
    return up, restarts


def _of_letters(counts: Mapping[LetterClass, int]) -> Metric:
    letters = GaugeMetricFamily(
        "nearline_dead_letters", "Dead letters that nobody has replayed or dropped", labels=["stage", "cause"]
    )
    for (stage, kind), number in counts.items():
        letters.add_metric([stage, kind], number)
    return letters


def _build() -> Metric:
    info = InfoMetricFamily("nearline_build", "The version of nearline, and of Python")
    info.add_metric([], {"version": version("nearline"), "python": platform.python_version()})
    return info


_BUILD: Final = _build()


def _of_look(figures: Figures) -> Iterable[Metric]:
    lags = GaugeMetricFamily("kafka_consumergroup_lag", "Records that the group has still to do", labels=_OF_GROUP)
    ages = GaugeMetricFamily(
        "kafka_consumergroup_group_lag_seconds",
        "Age of the oldest record that the group has still to do; at least so old, if it cannot be read yet",
        labels=_OF_GROUP,
    )
    for group, stage in figures.look.lags.items():
        for place, lag in stage.partitions.items():
            labels = [group, place.topic, str(place.partition)]
            lags.add_metric(labels, lag.records)
            ages.add_metric(labels, figures.look.ages_s[group].get(place, 0.0))
    ends = GaugeMetricFamily(
        "kafka_topic_partition_current_offset", "The end of the partition", labels=("topic", "partition")
    )
    for place, end in figures.ends.items():
        ends.add_metric([place.topic, str(place.partition)], end)
    return lags, ages, ends


def _standing_still(figures: Figures, report: Report) -> Metric:
    metric = GaugeMetricFamily(
        "nearline_standing_still_seconds",
        "For how long the stage has stood still, at least; 0 while it moves or has nothing to do",
        labels=("stage", "generation"),
    )
    stages = {(each.reads.stage, each.of or ""): 0.0 for each in figures.followed}
    stages |= {(each.stage, each.generation or ""): each.for_s for each in report.standing_still}
    for labels, for_s in stages.items():
        metric.add_metric(labels, for_s)
    return metric
