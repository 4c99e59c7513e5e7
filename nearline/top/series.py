"""What the monitor counts, from its `/metrics`, and how fast it grows between two looks. Knows no terminal."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_MAX_BYTES = 8 << 20

GroupTopic = tuple[str, str]


class Series(NamedTuple):
    """At `at_s` of a clock that only goes forward. `ends`: the sum of the ends of a topic's partitions. `lags`: what a
    group has still to do of a topic. `letters`: dead letters by stage and cause."""

    at_s: float
    ends: Mapping[str, float]
    lags: Mapping[GroupTopic, float]
    letters: Mapping[tuple[str, str], int]


class Rates(NamedTuple):
    """Records a second, control records included: what came into a topic, and what a group has done of it."""

    came: Mapping[str, float]
    done: Mapping[GroupTopic, float]


NO_RATES = Rates({}, {})


def read_series(monitor: str, at_s: float, timeout_s: float) -> Series:
    """`monitor` is its URL. Raises OSError, or HTTPException or ValueError if what answers is no monitor."""
    with urllib.request.urlopen(f"{monitor}/metrics", timeout=timeout_s) as answer:
        text = answer.read(_MAX_BYTES).decode()
    return series_of(text_string_to_metric_families(text), at_s)


def series_of(families: Iterable[Metric], at_s: float) -> Series:
    ends: defaultdict[str, float] = defaultdict(float)
    lags: defaultdict[GroupTopic, float] = defaultdict(float)
    letters = {}
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "kafka_topic_partition_current_offset":
                ends[labels["topic"]] += sample.value
            elif sample.name == "kafka_consumergroup_lag":
                lags[labels["consumergroup"], labels["topic"]] += sample.value
            elif sample.name == "nearline_dead_letters":
                letters[labels["stage"], labels["cause"]] = int(sample.value)
    return Series(at_s, dict(ends), dict(lags), letters)


def rates_between(before: Series, now: Series) -> Rates:
    """What was not there before, or has become less, such as a topic that was made anew, has no rate."""
    seconds = now.at_s - before.at_s
    if seconds <= 0:
        return NO_RATES
    grown = {topic: end - before.ends[topic] for topic, end in now.ends.items() if topic in before.ends}
    done = {
        key: grown[key[1]] - (lag - before.lags[key])
        for key, lag in now.lags.items()
        if key in before.lags and key[1] in grown
    }
    return Rates(
        {topic: number / seconds for topic, number in grown.items() if number >= 0},
        {key: number / seconds for key, number in done.items() if number >= 0},
    )
