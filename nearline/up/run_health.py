"""What a `nearline run` says of itself over HTTP: `/livez`, `/readyz`, and `/metrics` of it and its processes.

A cluster's scheduler asks here, at one port that the settings name, whichever stage runs. The processes of a stage
announce where each of them says its metrics; this passes them on, with the process as a label. Whether answers are
whole only the retriever's own `/readyz` says.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nearline.data_folder_metrics import DataFolderMetrics
from nearline.http_pages import Pages, json_page, metrics_page, served_pages
from nearline.monitor.judgement import judge
from nearline.monitor.processes import ProcessWatch
from nearline.monitor.seen import stages_seen
from nearline.settings.instance import ProcessInfo
from nearline.settings.process_names import parse
from nearline.settings.settings import Settings
from nearline.up.names import COLD, CONTEXTS, ENCODE, TRENDING
from nearline.up.scraping import Scraper
from retriever.settings import ServeSettings
from streams.kafka.heartbeat import read_heartbeats

LIVE_WITHIN_S: Final = 30.0
"""If the supervisor has not come round for so long, something is wrong with it. It comes round ten times a second."""
SILENT_S: Final = 60.0
"""A loop that has neither turned nor worked for so long is not ready. It reports about each second; a batch of a large
model is reported as work."""
_WITH_HEARTBEAT: Final = (CONTEXTS, TRENDING, ENCODE, COLD)


class RunHealth:
    """The main thread calls `looked` and `drains`; threads of the server ask the rest."""

    def __init__(self, data_dir: Path, stalled_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`stalled_after_s` is the setting."""
        self._data_dir = data_dir
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._watch = ProcessWatch(data_dir, clock)
        self._looked_at: float | None = None
        self._reason: str | None = "it waits for Kafka"
        self.processes: tuple[ProcessInfo, ...] = ()

    def looked(self, processes: Sequence[ProcessInfo], *, knows_generations: bool) -> None:
        """The supervisor has come round. `processes` are those that have something to do, started or not."""
        self.processes = tuple(processes)
        self._looked_at = self._clock()
        self._reason = None if knows_generations else "it has not read yet which generations live"

    def drains(self) -> None:
        """From now on it is not ready. The end of its processes may take longer than a look."""
        self._looked_at = None
        self._reason = "it is stopping"

    @property
    def is_alive(self) -> bool:
        """True also while it waits for a broker: to start it again would help nobody."""
        return self._looked_at is None or self._clock() - self._looked_at < LIVE_WITHIN_S

    def problems(self) -> list[str]:
        """Empty if it is ready: each of its processes is at work. That is so too where a place is empty."""
        if self._reason is not None:
            return [self._reason]
        found = (_problem(self._data_dir, process) for process in self.processes)
        return [*self._standing_still(), *(problem for problem in found if problem is not None)]

    def _standing_still(self) -> list[str]:
        """By the judgement that `nearline status` shares. What the broker says of lag only the monitor knows."""
        seen = stages_seen([], self._watch.look_at(self.processes), None)
        return [verdict.sentence for verdict in judge(seen, None, self._stalled_after_s)]


@contextmanager
def served_health(health: RunHealth, settings: Settings) -> Iterator[None]:
    """Serves it within the context; nothing without a port. Raises OSError if the port is taken."""
    run = settings.run
    if run.port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(RunMetrics(health, settings.data_dir, settings.serve))
    with served_pages("run-http", _pages(health, registry), run.host, run.port):
        yield


def _pages(health: RunHealth, registry: CollectorRegistry) -> Pages:
    def readiness() -> tuple[bool, dict[str, object]]:
        problems = health.problems()
        return not problems, {"ready": not problems, "problems": problems}

    return {
        "/livez": lambda: json_page(health.is_alive, {"alive": health.is_alive}),
        "/readyz": lambda: json_page(*readiness()),
        "/metrics": lambda: metrics_page(registry),
    }


def _problem(data_dir: Path, process: ProcessInfo) -> str | None:
    if process.pid is None:
        return f"{process.name} is not running; it is started again"
    if parse(process.name).stage not in _WITH_HEARTBEAT:
        return None
    heartbeats = [beat for beat in read_heartbeats(data_dir, process.name).values() if beat.pid == process.pid]
    if not heartbeats:
        return f"{process.name} is still starting"
    last_ns = min(max(beat.turned_ns, beat.worked_ns) for beat in heartbeats)
    silent_s = (time.time_ns() - last_ns) / 1e9
    return f"{process.name} has not come round for {silent_s:.0f} s" if silent_s > SILENT_S else None


class RunMetrics(Collector):
    """Reads the processes at every scrape."""

    def __init__(self, health: RunHealth, data_dir: Path, serve: ServeSettings) -> None:
        self._health = health
        self._data_dir = data_dir
        self._scraper = Scraper(data_dir, serve)

    def collect(self) -> Iterable[Metric]:
        processes = self._health.processes
        own = [_build_info(), *_of_processes(processes), *DataFolderMetrics(self._data_dir).collect()]
        yield from own
        # As it is read again, an info is a gauge with another name.
        yield from self._passed_on(processes, {f"{metric.name}{end}" for metric in own for end in ("", "_info")})

    def _passed_on(self, processes: Iterable[ProcessInfo], known: Collection[str]) -> Iterable[Metric]:
        """Without those that are known already: the monitor has some of the same name."""
        families: dict[str, Metric] = {}
        for process in processes:
            if process.pid is not None:
                for metric in self._scraper.metrics_of(process.name):
                    if metric.name in known:
                        continue
                    family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                    for sample in metric.samples:
                        family.samples.append(sample._replace(labels={"process": process.name, **sample.labels}))
        return families.values()


def _build_info() -> Metric:
    info = InfoMetricFamily("nearline_build", "The version of nearline")
    info.add_metric([], {"version": version("nearline")})
    return info


def _of_processes(processes: Iterable[ProcessInfo]) -> Iterable[Metric]:
    up = GaugeMetricFamily("nearline_process_up", "1 while the process runs", labels=["process"])
    restarts = CounterMetricFamily(
        "nearline_process_restarts", "How often it ended and was started again", labels=["process"]
    )
    memory = GaugeMetricFamily("nearline_process_resident_memory_bytes", "Its memory", labels=["process"])
    for process in processes:
        up.add_metric([process.name], float(process.pid is not None))
        restarts.add_metric([process.name], process.restarts)
        if (held := _resident_bytes(process.pid)) is not None:
            memory.add_metric([process.name], held)
    return up, restarts, memory


def _resident_bytes(pid: int | None) -> int | None:
    try:
        return None if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
