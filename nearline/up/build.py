"""Puts each process together: which parts it has, what each part gets, and what runs until the process is stopped.

    process          what it runs
    contexts-0 …     the context stage
    trending         the trending stage
    encode-blue-0 …  the encode stage, for the generation that lives at blue
    cold-blue        the index stage and the embedded cold tier, likewise
    serve            the retriever, with the hot tier and the hot feed that fills it; several are serve-0 …

What works for the generation at a place is put together in `build_place.py`. Knows no stage's work. The imports are
inside the functions, so that each process loads only the libraries it uses: torch in encode and serve, the embedded
Qdrant engine in cold.
"""

from collections.abc import Callable
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Final

import structlog

from encoders.package.model_package import ModelPackage
from indexer.devices import check_presence
from indexer.tiers import ColdReader, Offsets
from nearline.settings.settings import Settings
from nearline.up.build_place import EdgeTierFactory, build_cold, build_encode
from nearline.up.cold_socket import cold_socket
from nearline.up.failure_reports import StartTracker
from nearline.up.names import COLD, CONTEXTS, ENCODE, SERVE, TRENDING, check_name, serve_names
from nearline.up.residence import Run, at_place
from streams.generations.state import PLACES
from streams.kafka.heartbeat import Heartbeat, HeartbeatFile

if TYPE_CHECKING:
    from encoders.encoder import Encoder

log = structlog.get_logger(__name__)

ReportFailure = Callable[[Exception], None]
"""Takes the error because of which the process ends."""

_TIDY_EVERY_S: Final = 1.0


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
    the embedded cold tier in place of `EdgeColdTier`. Raises BadSettings.
    """
    stage, place_name, slot = check_name(name)
    place = place_name or PLACES[0]

    def make_heartbeat(loop: str = "loop") -> Heartbeat:
        return HeartbeatFile(settings.data_dir, name, loop, start_tracker.started_callback(loop))

    def encode() -> Run:
        check_presence("encode.device", settings.encode.device)
        return at_place(settings, place, lambda resident: build_encode(settings, name, resident, make_heartbeat))

    def cold() -> Run:
        heartbeat = make_heartbeat()
        return at_place(
            settings, place, lambda resident: build_cold(settings, name, resident, heartbeat, make_edge_tier)
        )

    builders: dict[str, Callable[[], Run]] = {
        CONTEXTS: lambda: build_contexts(settings, slot or "0", make_heartbeat()),
        TRENDING: lambda: build_trending(settings, make_heartbeat(), report_failure),
        ENCODE: encode,
        COLD: cold,
        SERVE: lambda: build_serve(settings, name, start_tracker.started_callback(SERVE)),
    }
    return builders[stage]()


def build_contexts(settings: Settings, slot: str, heartbeat: Heartbeat) -> Run:
    from streams.contexts.stage import ContextStage

    return ContextStage(
        settings.kafka, settings.contexts, settings.rules, settings.data_dir, slot, heartbeat=heartbeat
    ).run


def build_trending(settings: Settings, heartbeat: Heartbeat, report_failure: ReportFailure) -> Run:
    from streams.trending.stage import run_trending

    folder = settings.data_dir / TRENDING
    return lambda stop: run_trending(
        settings.kafka, settings.trending, folder, stop, heartbeat=heartbeat, report=report_failure
    )


def build_serve(settings: Settings, name: str, report_started: Callable[[], None]) -> Run:
    from indexer.cold.guarded_reader import GuardedColdReader
    from indexer.hot.tier import MatrixHotTier
    from indexer.id_table import IdTable
    from nearline.ask.status import read_status
    from nearline.ask.status_sources import sources_of_serve
    from nearline.up.feeds import new_feeds
    from nearline.up.metrics import withdraw
    from retriever.answer.retriever import Retriever
    from retriever.answer.warming_encoder import WarmingEncoder
    from retriever.feed.trending_lists import TrendingLists
    from retriever.serving import Addresses, serve
    from streams.kafka.periodic import repeating

    check_presence("hot.device", settings.hot.device)
    check_presence("encode.device", settings.encode.device)
    package = ModelPackage.read(settings.package_folder)
    worker = serve_names(settings).index(name)
    ids, trending = IdTable(), TrendingLists()
    hot = MatrixHotTier(package.dimension, settings.hot, ids)
    feeds = new_feeds(settings, package, hot, trending, writes_snapshots=worker == 0)
    encoder = WarmingEncoder(lambda: _query_encoder(settings, package))

    def new_cold() -> ColdReader:
        return _cold_reader(settings, package, feeds.index_position.posts)

    cold = GuardedColdReader(new_cold())
    retriever = Retriever(
        package.generation,
        package.dimension,
        cold,
        hot,
        ids=ids,
        members=feeds.members,
        encoder=encoder,
        trending=trending,
        feed_problem=lambda: feeds.hot.problem,
        cold_refuses=cold.refuses,
        replayed=feeds.index_position.replayed,
        kept_bytes=settings.serve.kept_mb * 1024 * 1024,
        forget_after_s=settings.kafka.erase_within_s / 2,
    )
    feeds.hot.watch(retriever.forget_kept)
    sources = sources_of_serve(settings, retriever, feeds.hot, lambda: closing(new_cold()))

    def on_listening(addresses: Addresses) -> None:
        log.info("listening", url=addresses.url, grpc=addresses.grpc)
        report_started()

    def run(stop: Event) -> None:
        with closing(cold), closing(retriever):
            encoder.start()
            with feeds.running(), repeating("tidying", _TIDY_EVERY_S, retriever.tidy):
                serve(
                    retriever,
                    feeds,
                    lambda: read_status(sources),
                    settings.serve,
                    on_listening=on_listening,
                    stop=stop,
                    own_port=settings.serve.own_port(worker),
                    on_own_url=lambda url: _announce_serve(settings, name, url),
                )
            withdraw(name, settings.data_dir)

    return run


def _announce_serve(settings: Settings, name: str, url: str) -> None:
    """Tells Prometheus where this process serves its metrics: where it alone answers."""
    from nearline.up.metrics import announce

    port = int(url.rpartition(":")[2])
    announce(name, settings.data_dir, settings.serve.host, port, settings.serve.scheme)


def _query_encoder(settings: Settings, package: ModelPackage) -> "Encoder":
    from encoders.encoder import Encoder

    # This encoder encodes one text at a time. Torch takes its number of threads from OMP_NUM_THREADS, which `nearline
    # up` has set for this process (`resources.py`).
    encoder = Encoder.load(package.folder, device=settings.encode.device, compiled=settings.encode.compile)
    encoder.warm_up()
    return encoder


def _cold_reader(settings: Settings, package: ModelPackage, position: Callable[[], Offsets]) -> ColdReader:
    """The cold tier for every process except `cold`, which owns it. `position` says how far the index stage is: a
    server does not know that itself."""
    if settings.cold.url is not None:
        from indexer.cold.qdrant.tier import QdrantColdTier

        # Without a dimension it makes no collections, so that no call takes longer than its deadline.
        return QdrantColdTier(settings.cold, package.generation, position=position)
    from indexer.cold.socket.client import RemoteColdTier

    return RemoteColdTier(cold_socket(settings.data_dir, package.generation), settings.cold.timeout_s)
