"""Asks an instance what Prometheus and an operator's browser ask."""

import json
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from nearline.pipeline import Pipeline

_ANSWER_S: Final = 30.0

Scraped = Mapping[str, Sequence[str]]
"""By the URL of each process's metrics: all its answers, in the order in which they came."""


def monitor_of(pipeline: Pipeline) -> str:
    """Its URL."""
    url = pipeline.instance.monitor
    if url is None:
        raise RuntimeError("the instance has no monitor")
    return url


def metrics_urls(data_dir: Path) -> list[str]:
    """Of all processes, as Prometheus finds them."""
    files = sorted((data_dir / "metrics").glob("*.json"))
    groups = [group for file in files for group in json.loads(file.read_bytes())]
    return [f"http://{address}/metrics" for group in groups for address in group["targets"]]


def fetch(url: str) -> bytes:
    """Raises OSError, HTTPError among them."""
    with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
        body: bytes = answer.read()
    return body


def num_series(metrics: str) -> int:
    """Every line that is no comment is a series."""
    return sum(bool(line) and not line.startswith("#") for line in metrics.splitlines())


def scrape(pipeline: Pipeline, every_s: float, stop: Event) -> Scraped:
    """As Prometheus does: at once, again and again, and a last time when `stop` is set. A process that does not answer
    is asked again the next time."""
    answers: dict[str, list[str]] = {}
    while True:
        is_last = stop.is_set()
        for url in metrics_urls(pipeline.data_dir):
            of_process = answers.setdefault(url, [])
            try:
                of_process.append(fetch(url).decode())
            except OSError:
                continue
        if is_last:
            return answers
        stop.wait(every_s)


def grown(scraped: Scraped, counter: str) -> float:
    """By how much the counter has grown from the first answers to the last ones, all its series together."""
    return sum(_total(answers[-1], counter) - _total(answers[0], counter) for answers in scraped.values() if answers)


def _total(metrics: str, counter: str) -> float:
    families = text_string_to_metric_families(metrics)
    return sum(sample.value for family in families for sample in family.samples if sample.name == counter)


def p99_s(ask: Callable[[], object], times: int) -> float:
    """Of the seconds that it takes."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return float(np.quantile(taken, 0.99))
