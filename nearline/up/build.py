"""Puts each process together: which parts it has, what each part gets, and what runs until the process is stopped.

    process          what it runs
    contexts-0 …     the context stage; contexts-v2-0 … that of a version that was rebuilt
    trending         the trending stage
    autopilot        what replaces the model by itself
    monitor          what says how far each stage is behind, and which one stands still
    encode-blue-0 …  the encode stage, for the generation that lives at blue
    cold-blue        the index stage and the embedded cold tier, likewise
    serve            the retriever, with all generations that may be asked; several are serve-0 …

What works for the generation at a place is put together in `build_place.py`, and what the retriever needs of each
generation in `open_generation.py`. Knows no stage's work. The imports are
inside the functions, so that each process loads only the libraries it uses: torch in encode and serve, the embedded
Qdrant engine in cold.
"""

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Final

import structlog

from nearline.settings.settings import Settings
from nearline.up.build_autopilot import build_autopilot
from nearline.up.build_contexts import build_contexts
from nearline.up.build_monitor import build_monitor
from nearline.up.build_place import EdgeTierFactory, build_cold, build_encode
from nearline.up.failure_reports import StartTracker
from nearline.up.names import AUTOPILOT, COLD, CONTEXTS, ENCODE, MONITOR, SERVE, TRENDING, check_name, serve_names
from nearline.up.residence import Run, at_place
from nearline.up.resources import limit_gpu_memory
from nearline.up.start_checks import check_this_machine
from retriever.errors import RetrieverUnavailable
from schemas.api import StatusResponse
from schemas.generations import GenerationRecord
from schemas.topics import FIRST_CONTEXTS
from streams.generations.state import PLACES, Generations
from streams.kafka.heartbeat import Heartbeat, HeartbeatFile

if TYPE_CHECKING:
    from retriever.service.answering import HotFeeds

log = structlog.get_logger(__name__)

ReportFailure = Callable[[Exception], None]
"""Takes the error because of which the process ends."""
_STANDING_EVERY_S: Final = 1.0


def build(
    name: str,
    settings: Settings,
    start_tracker: StartTracker,
    report_failure: ReportFailure,
    *,
    make_edge_tier: EdgeTierFactory | None = None,
) -> Run:
    """Puts one process together, by its name. What works at a place is put together when a generation lives there.

    Each part of the process tells `start_tracker` when it is at work. The trending process does not raise the error
    that ends it, because Faust is in between: it calls `report_failure` with the error instead. `make_edge_tier` makes
    the embedded cold tier in place of `EdgeColdTier`. Raises BadSettings, and what `check_this_machine` raises.
    """
    stage, place_name, slot, version = check_name(name)
    check_this_machine(settings, [stage])
    place = place_name or PLACES[0]

    def make_heartbeat(loop: str = "loop") -> Heartbeat:
        return HeartbeatFile(settings.data_dir, name, loop, start_tracker.started_callback(loop))

    def encode() -> Run:
        return at_place(settings, place, lambda resident: build_encode(settings, name, resident, make_heartbeat))

    def cold() -> Run:
        heartbeat = make_heartbeat()
        return at_place(
            settings, place, lambda resident: build_cold(settings, name, resident, heartbeat, make_edge_tier)
        )

    builders: dict[str, Callable[[], Run]] = {
        CONTEXTS: lambda: build_contexts(settings, name, slot or "0", version or FIRST_CONTEXTS, make_heartbeat()),
        TRENDING: lambda: build_trending(settings, make_heartbeat(), report_failure),
        AUTOPILOT: lambda: build_autopilot(settings, start_tracker.started_callback(AUTOPILOT)),
        MONITOR: lambda: build_monitor(settings, start_tracker.started_callback(MONITOR)),
        ENCODE: encode,
        COLD: cold,
        SERVE: lambda: build_serve(settings, name, start_tracker.started_callback(SERVE)),
    }
    return builders[stage]()


def build_trending(settings: Settings, heartbeat: Heartbeat, report_failure: ReportFailure) -> Run:
    from nearline.up.metrics import process_registry, served_metrics
    from streams.trending.metrics import TrendingMetrics
    from streams.trending.stage import run_trending

    registry = process_registry()
    metrics, folder = TrendingMetrics(registry), settings.data_dir / TRENDING
    kafka, own = settings.kafka, settings.trending

    def run(stop: Event) -> None:
        with served_metrics(TRENDING, settings.data_dir, own.metrics_host, registry):
            run_trending(kafka, own, folder, stop, heartbeat=heartbeat, report=report_failure, metrics=metrics)

    return run


def build_serve(settings: Settings, name: str, report_started: Callable[[], None]) -> Run:
    """Which generations it serves it learns from the log, when it runs."""
    from indexer.id_table import IdTable
    from nearline.ask.standing import StandingWatch
    from nearline.ask.status import read_status
    from nearline.ask.status_sources import sources_of_serve, standing_in_folder
    from nearline.generations.local_files import remove_snapshots_of_no_generation
    from nearline.up.metrics import withdraw
    from nearline.up.open_generation import OpenedGeneration, cold_reader
    from nearline.up.room_beside import refuse_serve_without_room
    from nearline.up.served_by_log import ServedByLog
    from retriever.answer.online_recall import OnlineRecall
    from retriever.serving import Addresses, serve
    from streams.generations.last_state import last_state_file
    from streams.kafka.periodic import repeating

    limit_gpu_memory([settings.hot.device, settings.encode.device], settings.serve.gpu_fraction)
    worker, ids = serve_names(settings).index(name), IdTable()
    writes_snapshots, recall = worker == 0, OnlineRecall(settings.serve.recall_budget)

    def open_generation(state: Generations, record: GenerationRecord) -> OpenedGeneration:
        refuse_serve_without_room(settings, state, record, _num_hot_posts(served.feeds))
        return OpenedGeneration(settings, record, ids, recall, writes_snapshots=writes_snapshots)

    last_state = last_state_file(settings.data_dir)
    by_log = ServedByLog(settings.kafka, settings.generations, open_generation, last_state)
    served = by_log.served
    recall.watch(served.missed)
    standing = StandingWatch(lambda: standing_in_folder(settings))

    def status() -> StatusResponse:
        sources = sources_of_serve(settings, served, served.feeds, lambda each: cold_reader(settings, each))
        return read_status(sources)

    def on_listening(addresses: Addresses) -> None:
        log.info("listening", url=addresses.url, grpc=addresses.grpc)
        report_started()

    def run(stop: Event) -> None:
        if writes_snapshots:
            remove_snapshots_of_no_generation(settings.data_dir)
        with by_log.running(), repeating("asking what stands still", _STANDING_EVERY_S, standing.look):
            serve(
                served,
                served.feeds,
                status,
                settings.serve,
                on_listening=on_listening,
                stop=stop,
                own_port=settings.serve.own_port(worker),
                on_own_url=lambda url: _announce_serve(settings, name, url),
                standing_still=standing.for_everybody,
            )
        recall.close()
        withdraw(name, settings.data_dir)

    return run


def _num_hot_posts(feeds: "HotFeeds") -> int | None:
    """Of the serving generation; None while its hot tier is being filled."""
    try:
        progress = feeds.progress()
    except RetrieverUnavailable:  # none is open yet
        return None
    return progress.posts if progress.caught_up else None


def _announce_serve(settings: Settings, name: str, url: str) -> None:
    """Tells Prometheus where this process serves its metrics: where it alone answers."""
    from nearline.up.metrics import announce

    port = int(url.rpartition(":")[2])
    announce(name, settings.data_dir, settings.serve.host, port, settings.serve.scheme)
