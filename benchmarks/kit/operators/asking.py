"""Asks an instance what Prometheus and an operator's browser ask."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np

from nearline.pipeline import Pipeline

_ANSWER_S: Final = 30.0


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


def scrape(pipeline: Pipeline, every_s: float, stop: Event) -> None:
    """As Prometheus does, until `stop` is set. A process that does not answer is asked again the next time."""
    while not stop.wait(every_s):
        for url in metrics_urls(pipeline.data_dir):
            try:
                fetch(url)
            except OSError:
                continue


def p99_s(ask: Callable[[], object], times: int) -> float:
    """Of the seconds that it takes."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return float(np.quantile(taken, 0.99))
