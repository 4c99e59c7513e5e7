"""How heavy the operators' page is, how soon it has numbers, and how soon it shows a stage that was stopped; how many
series an instance has."""

import json
import re
import time
from pathlib import Path
from typing import Final

from benchmarks.kit.operators.asking import fetch, metrics_urls, monitor_of, num_series
from benchmarks.kit.reindex.instance import build_and_open
from benchmarks.kit.stopping import stopped
from benchmarks.kit.table import Figure
from benchmarks.kit.waiting import until
from nearline.page.pages import OVERVIEW_PATH
from nearline.pipeline import Pipeline
from nearline.up.names import MONITOR

_PAGE_BYTES: Final = 150_000
_FIRST_NUMBERS_S: Final = 1.0
_SHOWN_S: Final = 5.0
_SERIES: Final = 5_000
_LOOK_EVERY_S: Final = 0.05


def page(pipeline: Pipeline) -> list[Figure]:
    """Without the time in which a browser draws it. Raises HTTPError for a page that answers with an error."""
    monitor = monitor_of(pipeline)
    began = time.perf_counter()
    weight = len(fetch(f"{monitor}/"))
    fetch(monitor + OVERVIEW_PATH)
    seconds = time.perf_counter() - began
    return [
        Figure("the page, bytes", weight, _PAGE_BYTES, "at_most"),
        Figure("the page and its first numbers, s", seconds, _FIRST_NUMBERS_S, "at_most"),
    ]


def stopped_stages(pipeline: Pipeline) -> list[Figure]:
    """Each process of a stage is stopped in turn. In the worst case the page has asked just before its data changed."""
    monitor = monitor_of(pipeline)
    names = [each.name for each in pipeline.instance.processes if each.pid is not None]
    stages = [name for name in names if name not in ("broker", MONITOR)]
    slowest_s = max(_named_after_s(pipeline, name) for name in stages)
    return [
        Figure(f"from a stopped stage to the page's data, slowest of {len(stages)} processes, s", slowest_s),
        Figure(
            "from a stopped stage to the page that shows it, s",
            slowest_s + poll_s(fetch(f"{monitor}/").decode()),
            _SHOWN_S,
            "at_most",
        ),
    ]


def poll_s(html: str) -> float:
    """For how long the page waits before it asks again."""
    match = re.search(r"\bPOLL_MS = (\d+)", html)
    if match is None:
        raise ValueError("the page does not say how often it asks")
    return int(match[1]) / 1000


def _named_after_s(pipeline: Pipeline, process: str) -> float:
    monitor = monitor_of(pipeline)
    until(lambda: not _standing(monitor), "nothing to stand still")
    with stopped(pipeline, process):
        began = time.monotonic()
        until(
            lambda: any(f"{process} (pid" in cause for cause in _standing(monitor)),
            f"the page to name {process}",
            _LOOK_EVERY_S,
        )
        return time.monotonic() - began


def _standing(monitor: str) -> list[str]:
    """The causes of all that stands still, by the page's data."""
    return [each["cause"] for each in json.loads(fetch(monitor + OVERVIEW_PATH))["report"]["standing_still"]]


def series(pipeline: Pipeline, other_package: Path) -> list[Figure]:
    build_and_open(pipeline, other_package)
    number = sum(num_series(fetch(url).decode()) for url in metrics_urls(pipeline.data_dir))
    return [Figure("series of all processes, with two generations", number, _SERIES, "at_most")]
