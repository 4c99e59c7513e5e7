"""Puts each process together: which parts it has, what each is given, and what runs until the stop.

Imports inside the functions, so that each process loads only what it uses: torch in encode and serve, FAISS in serve.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

import structlog

from encoders.package.model_package import ModelPackage
from indexer.devices import check_presence
from indexer.tiers import ColdReader, ColdTier, HotTier
from nearline.errors import BadSettings
from nearline.settings.instance import read_instance
from nearline.settings.settings import Settings
from nearline.up.cold_socket import cold_socket
from nearline.up.cores import encode_threads
from nearline.up.failures import Beginnings
from schemas.api import ProcessStatus, Readiness, StatusResponse
from streams.kafka.heartbeat import Heartbeat, HeartbeatFile

if TYPE_CHECKING:
    from encoders.encoder import Encoder
    from indexer.cold.edge_tier import EdgeColdTier
    from retriever.answer.retriever import Retriever
    from retriever.feed.hot_feed import HotFeed
    from retriever.feed.trending_lists import TrendingLists
    from streams.index.loop import IndexLoop

log = structlog.get_logger(__name__)

CONTEXTS: Final = "contexts"
TRENDING: Final = "trending"
ENCODE: Final = "encode"
COLD: Final = "cold"
SERVE: Final = "serve"

Run = Callable[[Event], None]
"""Runs the process until the event is set."""
Report = Callable[[Exception], None]

_FORGET_EVERY_S: Final = 60.0


def process_names(settings: Settings) -> list[str]:
    """Without the broker."""
    contexts = [f"{CONTEXTS}-{slot}" for slot in range(settings.contexts.workers)]
    encode = [f"{ENCODE}-{slot}" for slot in range(settings.encode.workers)]
    return [*contexts, TRENDING, *encode, COLD, SERVE]


def build(
    name: str,
    settings: Settings,
    beginnings: Beginnings,
    report: Report,
    *,
    new_edge: "Callable[..., EdgeColdTier] | None" = None,
) -> Run:
    """Of one process by its name, such as `contexts-0`. `beginnings` hear of each part that is at work, and `report` is
    called where the process leaves without raising. `new_edge` is called in the place of `EdgeColdTier`. Raises
    BadSettings."""
    stage, _, slot = name.partition("-")

    def heartbeat(loop: str = "loop") -> Heartbeat:
        return HeartbeatFile(settings.data_dir, name, loop, beginnings.expect(loop))

    builders: dict[str, Callable[[], Run]] = {
        CONTEXTS: lambda: build_contexts(settings, slot, heartbeat()),
        TRENDING: lambda: build_trending(settings, heartbeat(), report),
        ENCODE: lambda: build_encode(settings, slot, heartbeat),
        COLD: lambda: build_cold(settings, heartbeat(), new_edge),
        SERVE: lambda: build_serve(settings, beginnings.expect(SERVE)),
    }
    if name not in process_names(settings):
        raise BadSettings(f"{name} is no process; there are: {', '.join(process_names(settings))}")
    return builders[stage]()


def build_contexts(settings: Settings, slot: str, heartbeat: Heartbeat) -> Run:
    from streams.contexts.stage import ContextStage

    return ContextStage(
        settings.kafka, settings.contexts, settings.rules, settings.data_dir, slot, heartbeat=heartbeat
    ).run


def build_trending(settings: Settings, heartbeat: Heartbeat, report: Report) -> Run:
    from streams.trending.stage import run_trending

    folder = settings.data_dir / TRENDING
    return lambda stop: run_trending(
        settings.kafka, settings.trending, folder, stop, heartbeat=heartbeat, report=report
    )


def build_encode(settings: Settings, slot: str, heartbeat: Callable[[str], Heartbeat]) -> Run:
    from prometheus_client import CollectorRegistry

    from encoders.encoder import Encoder
    from encoders.metrics import EncoderMetrics
    from nearline.up.metrics import served_metrics
    from streams.encode.metrics import EncodeMetrics
    from streams.encode.stage import EncodeStage
    from streams.kafka.node_id import node_id
    from streams.kafka.periodic import repeating

    check_presence("encode.device", settings.encode.device)
    encoder = Encoder.load(
        package_folder(settings),
        device=_encode_device(settings.encode.device, int(slot)),
        threads=encode_threads(settings),
        budget_tokens=settings.encode.budget_tokens,
        compiled=settings.encode.compile,
    )
    if settings.encode.compile:
        encoder.warm_up()  # else the golden texts have done it
    worker = f"{node_id(settings.data_dir)}.{slot}"
    registry = CollectorRegistry()
    registry.register(EncoderMetrics(encoder))
    stage = EncodeStage(
        settings.kafka,
        settings.encode,
        encoder,
        encoder.package.generation,
        worker,
        metrics=EncodeMetrics(registry),
        heartbeat=heartbeat,
    )

    erase_within_s = settings.kafka.erase_within_s

    def run(stop: Event) -> None:
        with (
            served_metrics(f"{ENCODE}-{slot}", settings.data_dir, settings.encode.metrics_host, registry),
            repeating("forgetting vectors", erase_within_s / 8, lambda: encoder.forget_unused(erase_within_s / 2)),
        ):
            stage.run(stop)

    return run


def build_cold(settings: Settings, heartbeat: Heartbeat, new_edge: "Callable[..., EdgeColdTier] | None" = None) -> Run:
    """The embedded engine has one owner, this process; the others ask it over its socket."""
    from streams.index.loop import IndexLoop

    package = ModelPackage.read(package_folder(settings))
    edge = _edge_cold(settings, package, new_edge) if settings.cold.url is None else None
    tier = edge or _server_cold(settings, package)
    loop = IndexLoop(
        settings.kafka, settings.index, tier, package.generation, settings.cold.tombstones_kept_s, heartbeat=heartbeat
    )

    def run(stop: Event) -> None:
        with closing(tier), nullcontext() if edge is None else _served_cold(settings, edge, loop):
            loop.run(stop)

    return run


@contextmanager
def _served_cold(settings: Settings, tier: "EdgeColdTier", loop: "IndexLoop") -> Iterator[None]:
    """The embedded engine for the other processes, and its metrics for Prometheus."""
    from prometheus_client import CollectorRegistry

    from indexer.cold.metrics import ColdMetrics
    from indexer.cold.socket_server import ColdServer
    from nearline.up.metrics import served_metrics

    registry = CollectorRegistry()
    registry.register(ColdMetrics(tier))
    with (
        served_metrics(COLD, settings.data_dir, settings.index.metrics_host, registry),
        closing(ColdServer(tier, cold_socket(settings.data_dir), loop.freshness)) as server,
    ):
        server.start()
        yield


def build_serve(settings: Settings, has_begun: Callable[[], None]) -> Run:
    from indexer.hot.tier import MatrixHotTier
    from nearline.up.metrics import announce, withdraw
    from retriever.answer.retriever import Retriever
    from retriever.answer.warming_encoder import WarmingEncoder
    from retriever.feed.trending_lists import TrendingLists
    from retriever.http.app import create_app
    from retriever.http.server import serve
    from retriever.http.tls import server_context
    from streams.kafka.periodic import repeating

    check_presence("hot.device", settings.hot.device)
    check_presence("encode.device", settings.encode.device)
    package = ModelPackage.read(package_folder(settings))
    hot = MatrixHotTier(package.dimension, settings.hot)
    trending = TrendingLists()
    feed = _hot_feed(settings, package, hot, trending)
    encoder = WarmingEncoder(lambda: _query_encoder(settings, package))
    cold = reader_cold(settings, package)
    retriever = Retriever(
        package.generation, cold, hot, encoder=encoder, trending=trending, hot_problem=lambda: feed.problem
    )
    app = create_app(retriever, feed, _status(settings, package, retriever, feed), settings.serve)
    tls = server_context(settings.serve)

    def listening(url: str) -> None:
        log.info("listening", url=url)
        port = int(url.rpartition(":")[2])
        announce(SERVE, settings.data_dir, settings.serve.host, port, settings.serve.scheme)
        has_begun()

    def run(stop: Event) -> None:
        with closing(cold), closing(retriever):
            encoder.start()
            feed.start()
            with closing(feed), repeating("forgetting members", _FORGET_EVERY_S, retriever.forget_old):
                serve(app, settings.serve.host, settings.serve.port, listening, stop, tls)
            withdraw(SERVE, settings.data_dir)

    return run


def reader_cold(settings: Settings, package: ModelPackage) -> ColdReader:
    """The cold tier as everyone but its owner sees it."""
    if settings.cold.url is not None:
        return _server_cold(settings, package)
    from indexer.cold.socket_client import RemoteColdTier

    return RemoteColdTier(cold_socket(settings.data_dir), settings.cold.timeout_s)


def package_folder(settings: Settings) -> Path:
    """The package that is configured, else the demo's."""
    return settings.package or Path(__file__).parent.parent / "demo" / "package"


def _hot_feed(settings: Settings, package: ModelPackage, hot: HotTier, trending: "TrendingLists") -> "HotFeed":
    from confluent_kafka import Consumer

    from retriever.feed.hot_feed import CONSUMER_OVER, HotFeed
    from streams.kafka.clients import consumer_config

    # The client wants a group's name. This one commits nothing and asks no group for partitions.
    config = consumer_config(settings.kafka, "hot-feed", **CONSUMER_OVER)
    return HotFeed(lambda: Consumer(config), package.generation, hot, trending, window_s=settings.hot.window_s)


def _query_encoder(settings: Settings, package: ModelPackage) -> "Encoder":
    from encoders.encoder import Encoder

    # One text at a time: torch's own threads, as many as the environment of this process says.
    encoder = Encoder.load(package.folder, device=settings.encode.device, compiled=settings.encode.compile)
    encoder.warm_up()
    return encoder


def _status(
    settings: Settings, package: ModelPackage, retriever: "Retriever", feed: "HotFeed"
) -> Callable[[], StatusResponse]:
    """What /v1/status says; the processes are in the supervisor's file."""
    from nearline.ask.status import HotReport, Sources, read_status

    def processes() -> list[ProcessStatus]:
        found = read_instance(settings.data_dir).processes
        return [ProcessStatus(name=one.name, pid=one.pid, restarts=one.restarts) for one in found]

    def hot() -> HotReport:
        problems = retriever.problems()
        return HotReport(Readiness(ready=not problems, problems=problems), feed.positions())

    sources = Sources(
        processes=processes,
        generation=package.generation,
        kafka=lambda: settings.kafka,
        hot=hot,
        cold=lambda: closing(reader_cold(settings, package)),
    )
    return lambda: read_status(sources)


def _edge_cold(
    settings: Settings, package: ModelPackage, new_edge: "Callable[..., EdgeColdTier] | None"
) -> "EdgeColdTier":
    from indexer.cold.edge_tier import EdgeColdTier

    folder = settings.data_dir / "cold" / package.generation
    new_tier = EdgeColdTier if new_edge is None else new_edge
    erase_within_s = settings.kafka.erase_within_s
    return new_tier(folder, package.generation, package.dimension, settings.cold, erase_within_s=erase_within_s)


def _server_cold(settings: Settings, package: ModelPackage) -> ColdTier:
    from indexer.cold.qdrant_tier import QdrantColdTier

    return QdrantColdTier(settings.cold, package.generation, package.dimension)


def _encode_device(device: str, slot: int) -> str:
    """One GPU for each encode process, as far as they go."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return f"cuda:{slot % torch.cuda.device_count()}"
    return device
