"""The collections of a Qdrant server: how they are made, and whether one that is there fits the settings."""

from contextlib import closing
from typing import Any, get_args

import structlog
from qdrant_client import QdrantClient, models

from indexer.cold.qdrant.connection import connect, server_errors
from indexer.cold.qdrant.names import collection_name
from indexer.errors import TierUnavailable
from indexer.settings import ColdSettings
from schemas.ids import Generation, Kind

log = structlog.get_logger(__name__)


def create_collection(
    client: QdrantClient, name: str, dimension: int, settings: ColdSettings, *, quantize: bool
) -> None:
    """`quantize`: the collection is searched, so it is quantised if the settings say so."""
    int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT),
        # Without a graph scans are exact, and building a segment costs a seventh of what it costs with one.
        hnsw_config=models.HnswConfigDiff(m=settings.graph_m),
        quantization_config=models.ScalarQuantization(scalar=int8) if quantize and settings.quantize else None,
        replication_factor=settings.replication,
        shard_number=settings.shards,
    )


def check_collection(client: QdrantClient, name: str, dimension: int, settings: ColdSettings) -> None:
    """Raises TierUnavailable for a collection of another dimension. Logs which settings came too late for it."""
    config = client.get_collection(name).config
    vectors = config.params.vectors
    if not isinstance(vectors, models.VectorParams) or vectors.size != dimension:
        # Not TierRefused: that would blame a record and make it a dead letter.
        raise TierUnavailable(
            f"the collection {name} does not hold vectors of {dimension}; remove it or use another server"
        )
    found: dict[str, Any] = {"cold.replication": config.params.replication_factor, "cold.graph_m": config.hnsw_config.m}
    wanted = {"cold.replication": settings.replication, "cold.graph_m": settings.graph_m}
    if settings.shards is not None:
        found["cold.shards"], wanted["cold.shards"] = config.params.shard_number, settings.shards
    if found != wanted:
        log.warning(
            "a collection was made with other settings and keeps them; the next generation gets the new ones",
            collection=name,
            found=found,
            wanted=wanted,
        )


def delete_collections(settings: ColdSettings, generation: Generation) -> None:
    """Deletes everything that a generation has on the server. Can be repeated. Raises TierUnavailable."""
    with server_errors(), closing(connect(settings)) as client:
        for kind in get_args(Kind):
            client.delete_collection(collection_name(kind, generation))
