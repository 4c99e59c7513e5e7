"""The monitor's figures by stage, generation and place: what scales a deployment, and what alerts go by.

The names of consumer groups hold generations, which change; deployments have places, which stay.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from nearline.monitor.seen import Followed, Look
from streams.generations.state import PLACES

_STAGE: Final = ("stage", "generation", "place")


def stage_metrics(look: Look, followed: Iterable[Followed]) -> Iterable[Metric]:
    """`followed`: the stages of all generations that live, and those that all generations share."""
    followed = list(followed)
    records = {each.record.id: each.record for each in followed if each.record is not None}
    ages = GaugeMetricFamily(
        "nearline_stage_oldest_record_seconds",
        "Age of the oldest record that the stage has still to do; 0 if there is none",
        labels=_STAGE,
    )
    for each in followed:
        generation, place = ("", "") if each.record is None else (each.record.id, each.record.place or "")
        waiting = look.ages_s.get(each.reads.group, {})
        ages.add_metric([each.reads.stage, generation, place], max(waiting.values(), default=0.0))
    occupied = GaugeMetricFamily("nearline_place_occupied", "1 while a generation lives at the place", labels=["place"])
    for place in PLACES:
        occupied.add_metric([place], float(any(record.place == place for record in records.values())))
    return ages, occupied
