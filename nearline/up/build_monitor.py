"""Puts the process of the monitor together. As in `build.py`, the imports are inside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import structlog

from nearline.ports import listening_port
from nearline.settings.settings import MonitorSettings, Settings
from nearline.up.names import MONITOR
from nearline.up.residence import Run
from schemas.ids import Generation

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from nearline.http_pages import Calls
    from nearline.monitor.monitor import Monitor
    from nearline.page.access import Access
    from nearline.page.collector import Collector
    from streams.generations.state import Generations

log = structlog.get_logger(__name__)


def with_named_port(monitor: MonitorSettings) -> MonitorSettings:
    """The settings with a number for the port: chosen once, so that a restarted process listens where it did before.
    Raises StartFailed."""
    port = listening_port(monitor.host, monitor.port, "choose another monitor.port")
    return monitor.model_copy(update={"port": port})


def build_monitor(settings: Settings, report_started: Callable[[], None]) -> Run:
    """`report_started` is called when it listens."""
    from nearline.data_folder_metrics import DataFolderMetrics
    from nearline.monitor.mending import MEND_EVERY_S, LogMender
    from nearline.monitor.metrics import MonitorMetrics
    from nearline.monitor.monitor import LOOK_EVERY_S, Monitor
    from nearline.monitor.processes import ProcessWatch
    from nearline.monitor.server import served
    from nearline.page.access import access
    from nearline.page.history import STEP_S
    from nearline.up.metrics import announce, process_registry, withdraw
    from streams.generations.follower import GenerationsFollower
    from streams.kafka.periodic import repeating

    follower = GenerationsFollower(settings.kafka)
    processes = ProcessWatch(settings.data_dir)
    monitor = Monitor(
        settings.kafka,
        follower.current,
        processes,
        settings.stalled_after_s,
        post_vectors=settings.encode.post_vectors,
    )
    registry = process_registry()
    registry.register(MonitorMetrics(monitor))
    registry.register(DataFolderMetrics(settings.data_dir))
    mender = LogMender(settings.kafka, follower, registry)
    canaries = _canaries(settings, monitor, follower.current, registry)
    allowed = access(settings.monitor, settings.serve.api_key)
    collector, calls = _page(settings, monitor, follower.current, allowed)
    host, port = settings.monitor.host, settings.monitor.port

    def run(stop: Event) -> None:
        # Neither the follower nor the clients are closed: at the end of the process they may still wait for the broker.
        follower.start()
        monitor.judge()
        with (
            served(monitor, registry, host, port, calls, refuse=allowed.refuse_host),
            repeating("looking at lag", LOOK_EVERY_S, monitor.look_at_broker),
            repeating("asking for the page", STEP_S, collector.look),
            repeating("mending the log of the generations", MEND_EVERY_S, mender.look),
        ):
            log.info("listening", url=settings.monitor.own_url)
            announce(MONITOR, settings.data_dir, host, port)
            report_started()
            with canaries:
                while not stop.wait(LOOK_EVERY_S):
                    monitor.judge()
        withdraw(MONITOR, settings.data_dir)

    return run


def _page(
    settings: Settings, monitor: "Monitor", state: "Callable[[], Generations | None]", access: "Access"
) -> "tuple[Collector, Calls]":
    """The operators' page: who collects its figures, and what is served."""
    import time

    from nearline.alerts.objectives import read_objectives
    from nearline.ask.connections import own_connections
    from nearline.page.collector import Collector
    from nearline.page.overview import Overview, overview
    from nearline.page.pages import page_calls
    from nearline.up.page_acts import PageActs
    from nearline.up.page_sources import page_sources

    objectives = read_objectives()
    collector = Collector(monitor, page_sources(settings, state), objectives.freshness.within_s)

    def now(since_s: float) -> Overview:
        collected, history = collector.collected, collector.history
        return overview(monitor, collected, history, objectives, time.monotonic(), since_s, access=access)

    acts = PageActs(lambda: own_connections(settings), lambda: monitor.report.broker_up)
    return collector, page_calls(now, acts, access)


@contextmanager
def _canaries(
    settings: Settings, monitor: "Monitor", state: "Callable[[], Generations | None]", registry: "CollectorRegistry"
) -> Iterator[None]:
    """They are sent within the context, if the settings say so."""
    every_s = settings.monitor.canary_s
    if not every_s:
        yield
        return
    from nearline.monitor.canaries import LOOK_EVERY_S, Canaries
    from nearline.monitor.canary_metrics import CanaryMetrics
    from nearline.up.canary_ends import CanaryEnds, own_canaries
    from streams.kafka.periodic import repeating

    def live() -> list[Generation]:
        """Those that a retriever has open."""
        now = state()
        return [] if now is None else [record.id for record in now.live if record.state != "building"]

    ends, ids = CanaryEnds(settings), own_canaries(settings)
    canaries = Canaries(ends, CanaryMetrics(registry), ids, live, monitor.behind_s, every_s=every_s)
    monitor.watch_canaries(lambda: canaries.troubles, every_s)
    with repeating("sending canaries", LOOK_EVERY_S, canaries.step):
        yield
