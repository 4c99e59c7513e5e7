"""Puts together what works for one generation at its place: the encode stage, and the index stage with its cold tier.

As in `build.py`, the imports are inside the functions, so that each process loads only the libraries it uses.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from threading import Event
from typing import TYPE_CHECKING, Final

import structlog

from encoders.package.model_package import ModelPackage
from indexer.errors import TierUnavailable
from indexer.tiers import ColdTier
from nearline.generations.local_files import cold_folder, empty_if_of_an_earlier_life
from nearline.generations.packages import checked_files
from nearline.settings.process_names import parse
from nearline.settings.settings import Settings
from nearline.up.cold_socket import cold_socket
from nearline.up.live_first import LiveFirst
from nearline.up.residence import Resident, Run
from nearline.up.resources import encode_device, encode_gpu, encode_threads, limit_gpu_memory
from nearline.up.room_beside import refuse_cold_without_room, refuse_encode_without_room
from schemas.ids import Generation
from streams.generations.completeness import Completeness, say_ready_if_complete
from streams.kafka.heartbeat import Heartbeat
from streams.kafka.periodic import repeating

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from encoders.encoder import Encoder
    from indexer.cold.edge.tier import EdgeColdTier
    from streams.index.loop import IndexLoop

log = structlog.get_logger(__name__)

EdgeTierFactory = Callable[..., "EdgeColdTier"]
"""Makes the embedded cold tier. Takes the parameters of `EdgeColdTier`."""

_COMPLETE_EVERY_S: Final = 1.0


def build_encode(settings: Settings, name: str, resident: Resident, make_heartbeat: Callable[[str], Heartbeat]) -> Run:
    """The encode stage has several loops, and makes a heartbeat for each."""
    from encoders.metrics import EncoderMetrics
    from nearline.up.device_turns import DeviceTurns, SharedDevice
    from nearline.up.metrics import process_registry, served_metrics
    from nearline.up.post_vectors import post_vectors_of
    from streams.encode.metrics import EncodeMetrics
    from streams.encode.stage import EncodeStage
    from streams.kafka.node_id import node_id

    slot = parse(name).slot or "0"
    refuse_encode_without_room(settings, resident, int(slot))
    encoder = _context_encoder(settings, resident.package, int(slot))
    registry = process_registry()
    registry.register(EncoderMetrics(encoder))
    gpu = encode_gpu(settings, int(slot))
    turns = None if gpu is None else DeviceTurns(settings.data_dir, gpu)
    pace = LiveFirst(
        settings.kafka,
        resident,
        settings.generations.live_bound_s,
        encoder.yield_cores,
        device_is_taken=(lambda: False) if turns is None else turns.is_taken,
    )
    stage = EncodeStage(
        settings.kafka,
        settings.encode,
        encoder if turns is None else SharedDevice(encoder, turns, lambda: resident.newest.state != "building"),
        resident.record.id,
        f"{node_id(settings.kafka, settings.data_dir)}.{slot}",
        metrics=EncodeMetrics(registry),
        make_heartbeat=make_heartbeat,
        pace=pace,
        contexts=resident.record.contexts,
        post_vectors=post_vectors_of(settings, resident) if settings.encode.post_vectors else None,
    )
    erase_within_s = settings.kafka.erase_within_s

    def run(stop: Event) -> None:
        with (
            served_metrics(name, settings.data_dir, settings.encode.metrics_host, registry),
            repeating("forgetting vectors", erase_within_s / 8, lambda: encoder.forget_unused(erase_within_s / 2)),
            pace.running(),
        ):
            stage.run(stop)

    return run


def _context_encoder(settings: Settings, package: ModelPackage, slot: int) -> "Encoder":
    from encoders.encoder import Encoder

    device = encode_device(settings, slot)
    limit_gpu_memory([device], settings.encode.gpu_fraction)
    encoder = Encoder.load(
        package.folder,
        device=device,
        threads=encode_threads(settings),
        budget_tokens=settings.encode.budget_tokens,
        compiled=settings.encode.compile,
        attention=settings.encode.attention,
        checked=checked_files(settings.data_dir),
    )
    if settings.encode.compile:
        # Without compilation the encoder is warm already: `load` has encoded the package's check texts (its goldens).
        encoder.warm_up()
    return encoder


def build_cold(
    settings: Settings,
    name: str,
    resident: Resident,
    heartbeat: Heartbeat,
    make_edge_tier: EdgeTierFactory | None = None,
) -> Run:
    """Only this process opens the generation's embedded cold tier. The other processes ask it over its socket."""
    from nearline.up.metrics import served_metrics
    from streams.index.loop import IndexLoop

    if settings.cold.url is None:
        refuse_cold_without_room(settings, resident)
    edge_tier = _edge_tier(settings, resident, make_edge_tier) if settings.cold.url is None else None
    tier = edge_tier or _server_tier(settings, resident.package)
    live_first = LiveFirst(settings.kafka, resident, settings.generations.live_bound_s)
    loop = IndexLoop(
        settings.kafka,
        settings.index,
        tier,
        resident.record.id,
        settings.cold.tombstones_kept_s,
        heartbeat=heartbeat,
        may_read=live_first.may_read,
        catches_up=lambda: resident.newest.state == "building",
    )

    registry = _index_registry(resident.record.id, loop, edge_tier)

    def run(stop: Event) -> None:
        with (
            closing(tier),
            served_metrics(name, settings.data_dir, settings.index.metrics_host, registry),
            nullcontext() if edge_tier is None else _served_edge_tier(settings, resident, edge_tier, loop),
            live_first.running(),
            _completeness_watched(settings, name, resident),
        ):
            if edge_tier is None:
                _make_collections(tier)
            loop.run(stop)

    return run


@contextmanager
def _completeness_watched(settings: Settings, name: str, resident: Resident) -> Iterator[None]:
    """Says in the log when the generation is complete. This process does it because every deployment has one for each
    place, on one machine and on many."""
    if resident.record.state != "building":
        yield
        return
    # Never closed: at the end of the process the thread may still ask.
    completeness = Completeness(settings.kafka, resident.record)
    who = f"{socket.gethostname()}:{name}"

    def look() -> None:
        if resident.newest.state == "building":
            say_ready_if_complete(settings.kafka, completeness, resident.record.id, who)

    with repeating("looking whether the generation is complete", _COMPLETE_EVERY_S, look):
        yield


def _make_collections(tier: ColdTier) -> None:
    """So that readers find them before the first record comes. If the server is away, the first write makes them."""
    try:
        tier.write("post", [])
    except TierUnavailable as error:
        log.warning("the collections could not be made yet", error=str(error))


def _index_registry(generation: Generation, loop: "IndexLoop", edge_tier: "EdgeColdTier | None") -> "CollectorRegistry":
    """With a Qdrant server too only this process knows how fresh it is and what became of the records; all else the
    server says of itself."""
    from indexer.freshness_metric import FreshnessMetric
    from nearline.up.metrics import process_registry
    from streams.index.metrics import IndexMetrics

    registry = process_registry()
    registry.register(IndexMetrics(loop, generation))
    registry.register(FreshnessMetric("cold", generation, loop.freshness_by_kind))
    if edge_tier is not None:
        from indexer.cold.edge.metrics import ColdMetrics

        registry.register(ColdMetrics(edge_tier, generation))
    return registry


@contextmanager
def _served_edge_tier(
    settings: Settings, resident: Resident, tier: "EdgeColdTier", loop: "IndexLoop"
) -> Iterator[None]:
    """Serves the embedded cold tier to the other processes."""
    from indexer.cold.socket.server import ColdServer

    socket_path = cold_socket(settings.data_dir, resident.record.id)
    with closing(ColdServer(tier, socket_path, loop.freshness)) as server:
        server.start()
        yield


def _edge_tier(settings: Settings, resident: Resident, make_edge_tier: EdgeTierFactory | None) -> "EdgeColdTier":
    from indexer.cold.edge.tier import EdgeColdTier

    folder = cold_folder(settings.data_dir, resident.record.id)
    empty_if_of_an_earlier_life(folder, resident.record)
    return (make_edge_tier or EdgeColdTier)(
        folder,
        resident.record.id,
        resident.package.dimension,
        settings.cold,
        erase_within_s=settings.kafka.erase_within_s,
    )


def _server_tier(settings: Settings, package: ModelPackage) -> ColdTier:
    from indexer.cold.qdrant.tier import QdrantColdTier

    return QdrantColdTier(settings.cold, package.generation, package.dimension)
