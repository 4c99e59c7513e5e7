"""Puts each process together: which parts it has, what each part gets, and what runs until the process is stopped.

    process       what it runs
    contexts-0 …  the context stage
    trending      the trending stage
    encode-0 …    the encode stage
    cold          the index stage, and the embedded cold tier unless the settings name a Qdrant server
    serve         the retriever, with the hot tier and the hot feed that fills it

Knows no stage's work. The imports are inside the functions, so that each process loads only the libraries it uses:
torch in encode and serve, the embedded Qdrant engine in cold.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from threading import Event
from typing import TYPE_CHECKING, Final

import structlog

from encoders.package.model_package import ModelPackage
from indexer.devices import check_presence
from indexer.errors import TierUnavailable
from indexer.tiers import ColdReader, ColdTier, Offsets
from nearline.errors import BadSettings
from nearline.settings.settings import Settings
from nearline.up.cold_socket import cold_socket
from nearline.up.failure_reports import StartTracker
from nearline.up.resources import encode_device, encode_threads
from streams.kafka.heartbeat import Heartbeat, HeartbeatFile

if TYPE_CHECKING:
    from encoders.encoder import Encoder
    from indexer.cold.edge.tier import EdgeColdTier
    from streams.index.loop import IndexLoop

log = structlog.get_logger(__name__)

CONTEXTS: Final = "contexts"
TRENDING: Final = "trending"
ENCODE: Final = "encode"
COLD: Final = "cold"
SERVE: Final = "serve"

Run = Callable[[Event], None]
"""Runs the process until the event is set."""
ReportFailure = Callable[[Exception], None]
"""Takes the error because of which the process ends."""
EdgeTierFactory = Callable[..., "EdgeColdTier"]
"""Makes the embedded cold tier. Takes the parameters of `EdgeColdTier`."""

_TIDY_EVERY_S: Final = 1.0


def process_names(settings: Settings) -> list[str]:
    """The names of all processes of an instance except the broker, such as `contexts-0`. The number is the slot of a
    worker."""
    contexts = [f"{CONTEXTS}-{slot}" for slot in range(settings.contexts.workers)]
    encode = [f"{ENCODE}-{slot}" for slot in range(settings.encode.workers)]
    return [*contexts, TRENDING, *encode, COLD, SERVE]


def build(
    name: str,
    settings: Settings,
    start_tracker: StartTracker,
    report_failure: ReportFailure,
    *,
    make_edge_tier: EdgeTierFactory | None = None,
) -> Run:
    """Puts one process together, by its name.

    Each part of the process tells `start_tracker` when it is at work. The trending process does not raise the error
    that ends it, because Faust is in between: it calls `report_failure` with the error instead. `make_edge_tier` makes
    the embedded cold tier in place of `EdgeColdTier`. Raises BadSettings.
    """
    process, _, slot = name.partition("-")

    def make_heartbeat(loop: str = "loop") -> Heartbeat:
        return HeartbeatFile(settings.data_dir, name, loop, start_tracker.started_callback(loop))

    builders: dict[str, Callable[[], Run]] = {
        CONTEXTS: lambda: build_contexts(settings, slot, make_heartbeat()),
        TRENDING: lambda: build_trending(settings, make_heartbeat(), report_failure),
        # The encode stage has several loops and makes a heartbeat for each.
        ENCODE: lambda: build_encode(settings, slot, make_heartbeat),
        COLD: lambda: build_cold(settings, make_heartbeat(), make_edge_tier),
        SERVE: lambda: build_serve(settings, start_tracker.started_callback(SERVE)),
    }
    if name not in process_names(settings):
        raise BadSettings(f"{name} is no process; there are: {', '.join(process_names(settings))}")
    return builders[process]()


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


def build_encode(settings: Settings, slot: str, make_heartbeat: Callable[[str], Heartbeat]) -> Run:
    from prometheus_client import CollectorRegistry

    from encoders.metrics import EncoderMetrics
    from nearline.up.metrics import served_metrics
    from streams.encode.metrics import EncodeMetrics
    from streams.encode.stage import EncodeStage
    from streams.kafka.node_id import node_id
    from streams.kafka.periodic import repeating

    encoder = _context_encoder(settings, int(slot))
    registry = CollectorRegistry()
    registry.register(EncoderMetrics(encoder))
    stage = EncodeStage(
        settings.kafka,
        settings.encode,
        encoder,
        encoder.package.generation,
        f"{node_id(settings.data_dir)}.{slot}",
        metrics=EncodeMetrics(registry),
        make_heartbeat=make_heartbeat,
    )
    erase_within_s = settings.kafka.erase_within_s

    def run(stop: Event) -> None:
        with (
            served_metrics(f"{ENCODE}-{slot}", settings.data_dir, settings.encode.metrics_host, registry),
            repeating("forgetting vectors", erase_within_s / 8, lambda: encoder.forget_unused(erase_within_s / 2)),
        ):
            stage.run(stop)

    return run


def _context_encoder(settings: Settings, slot: int) -> "Encoder":
    from encoders.encoder import Encoder

    check_presence("encode.device", settings.encode.device)
    encoder = Encoder.load(
        settings.package_folder,
        device=encode_device(settings, slot),
        threads=encode_threads(settings),
        budget_tokens=settings.encode.budget_tokens,
        compiled=settings.encode.compile,
    )
    if settings.encode.compile:
        # Without compilation the encoder is warm already: `load` has encoded the package's check texts (its goldens).
        encoder.warm_up()
    return encoder


def build_cold(settings: Settings, heartbeat: Heartbeat, make_edge_tier: EdgeTierFactory | None = None) -> Run:
    """Only this process opens the embedded cold tier. The other processes ask it over its socket."""
    from streams.index.loop import IndexLoop

    package = ModelPackage.read(settings.package_folder)
    edge_tier = _edge_tier(settings, package, make_edge_tier) if settings.cold.url is None else None
    tier = edge_tier or _server_tier(settings, package)
    loop = IndexLoop(
        settings.kafka, settings.index, tier, package.generation, settings.cold.tombstones_kept_s, heartbeat=heartbeat
    )

    def run(stop: Event) -> None:
        served = nullcontext() if edge_tier is None else _served_edge_tier(settings, edge_tier, loop)
        with closing(tier), served:
            if edge_tier is None:
                _make_collections(tier)
            loop.run(stop)

    return run


def _make_collections(tier: ColdTier) -> None:
    """So that readers find them before the first record comes. If the server is away, the first write makes them."""
    try:
        tier.write("post", [])
    except TierUnavailable as error:
        log.warning("the collections could not be made yet", error=str(error))


@contextmanager
def _served_edge_tier(settings: Settings, tier: "EdgeColdTier", loop: "IndexLoop") -> Iterator[None]:
    """Serves the embedded cold tier to the other processes, and its metrics to Prometheus."""
    from prometheus_client import CollectorRegistry

    from indexer.cold.edge.metrics import ColdMetrics
    from indexer.cold.socket.server import ColdServer
    from nearline.up.metrics import served_metrics

    registry = CollectorRegistry()
    registry.register(ColdMetrics(tier))
    with (
        served_metrics(COLD, settings.data_dir, settings.index.metrics_host, registry),
        closing(ColdServer(tier, cold_socket(settings.data_dir), loop.freshness)) as server,
    ):
        server.start()
        yield


def build_serve(settings: Settings, report_started: Callable[[], None]) -> Run:
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
    ids, trending = IdTable(), TrendingLists()
    hot = MatrixHotTier(package.dimension, settings.hot, ids)
    feeds = new_feeds(settings, package, hot, trending)
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
        kept_bytes=settings.serve.kept_mb * 1024 * 1024,
    )
    sources = sources_of_serve(settings, retriever, feeds.hot, lambda: closing(new_cold()))

    def on_listening(addresses: Addresses) -> None:
        log.info("listening", url=addresses.url, grpc=addresses.grpc)
        _announce_serve(settings, addresses.url)
        report_started()

    def run(stop: Event) -> None:
        with closing(cold), closing(retriever):
            encoder.start()
            with feeds.running(), repeating("tidying", _TIDY_EVERY_S, retriever.tidy):
                serve(
                    retriever,
                    feeds.hot,
                    lambda: read_status(sources),
                    settings.serve,
                    on_listening=on_listening,
                    stop=stop,
                )
            withdraw(SERVE, settings.data_dir)

    return run


def _announce_serve(settings: Settings, url: str) -> None:
    """Tells Prometheus where this process serves its metrics: at the same port as its answers."""
    from nearline.up.metrics import announce

    port = int(url.rpartition(":")[2])
    announce(SERVE, settings.data_dir, settings.serve.host, port, settings.serve.scheme)


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

    return RemoteColdTier(cold_socket(settings.data_dir), settings.cold.timeout_s)


def _edge_tier(settings: Settings, package: ModelPackage, make_edge_tier: EdgeTierFactory | None) -> "EdgeColdTier":
    from indexer.cold.edge.tier import EdgeColdTier

    return (make_edge_tier or EdgeColdTier)(
        settings.data_dir / "cold" / package.generation,
        package.generation,
        package.dimension,
        settings.cold,
        erase_within_s=settings.kafka.erase_within_s,
    )


def _server_tier(settings: Settings, package: ModelPackage) -> ColdTier:
    from indexer.cold.qdrant.tier import QdrantColdTier

    return QdrantColdTier(settings.cold, package.generation, package.dimension)
