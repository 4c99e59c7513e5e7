"""How heavy the operators' page is and how soon it has numbers; how many series an instance has."""

import time
from pathlib import Path
from typing import Final

from benchmarks.kit.operators.asking import fetch, metrics_urls, monitor_of, num_series
from benchmarks.kit.reindex.instance import build_and_open
from benchmarks.kit.table import Figure
from nearline.pipeline import Pipeline

_PAGE_BYTES: Final = 150_000
_FIRST_NUMBERS_S: Final = 1.0
_SERIES: Final = 5_000
_OVERVIEW: Final = "/v1/overview"
"""Where the page gets its numbers."""


def page(pipeline: Pipeline) -> list[Figure]:
    """Without the time in which a browser draws it. Raises HTTPError for a page that answers with an error."""
    monitor = monitor_of(pipeline)
    began = time.perf_counter()
    weight = len(fetch(f"{monitor}/"))
    fetch(monitor + _OVERVIEW)
    seconds = time.perf_counter() - began
    return [
        Figure("the page, bytes", weight, _PAGE_BYTES, "at_most"),
        Figure("the page and its first numbers, s", seconds, _FIRST_NUMBERS_S, "at_most"),
    ]


def series(pipeline: Pipeline, other_package: Path) -> list[Figure]:
    build_and_open(pipeline, other_package)
    number = sum(num_series(fetch(url).decode()) for url in metrics_urls(pipeline.data_dir))
    return [Figure("series of all processes, with two generations", number, _SERIES, "at_most")]
