"""Cold tiers of every kind by name, a clock to set, and a comparison of hits."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.brute_force import BruteColdTier
from indexer.cold.edge.tier import EdgeColdTier
from indexer.cold.socket.client import RemoteColdTier
from indexer.cold.socket.server import ColdServer
from indexer.settings import ColdSettings
from indexer.tiers import Clock, ColdHits, ColdTier, Hits
from schemas.ids import Generation, Micros
from tests.kit.data.embeddings import DIMENSION, GENERATION, NOW, index_records, post_embedding, vectors

if TYPE_CHECKING:
    from indexer.cold.qdrant.tier import QdrantColdTier


ColdMaker = Callable[[Path, Clock], Iterator[ColdTier]]


class SetClock:
    def __init__(self, now: int = NOW) -> None:
        self.now = Micros(now)

    def __call__(self) -> Micros:
        return self.now


def same_hits(left: ColdHits | Hits, right: ColdHits | Hits) -> None:
    assert left.post_ids == right.post_ids
    assert list(left.revisions) == list(right.revisions)
    np.testing.assert_allclose(left.scores, right.scores, atol=2e-6)
    assert left.scores.dtype == np.float32


@contextmanager
def cold_tier(kind: str, folder: Path, clock: Clock, dimension: int = DIMENSION) -> Iterator[ColdTier]:
    """One of every implementation, by name."""
    if kind == "brute":
        yield BruteColdTier(dimension, clock)
    elif kind == "qdrant":
        with qdrant(clock, dimension) as tier:
            yield tier
    else:
        with closing(EdgeColdTier(folder / "cold", GENERATION, dimension, ColdSettings(), clock)) as edge:
            if kind == "edge":
                yield edge
                return
            with closing(ColdServer(edge, folder / "cold.sock")) as server:
                server.start()
                with closing(WrittenByItsOwner(edge, folder / "cold.sock")) as remote:
                    yield remote


class WrittenByItsOwner(RemoteColdTier):
    """What the owner of a tier writes, and another process reads."""

    def __init__(self, owner: ColdTier, socket_path: Path) -> None:
        super().__init__(socket_path, timeout_s=30)
        self.write = owner.write
        self.flush = owner.flush
        self.sweep = owner.sweep
        self.reached = owner.reached
        self.is_empty = owner.is_empty


@contextmanager
def qdrant(clock: Clock, dimension: int) -> Iterator["QdrantColdTier"]:
    """Of a generation that nobody has used before."""
    from indexer.cold.qdrant.tier import QdrantColdTier
    from tests.kit.qdrant_server import QdrantServer

    generation = Generation(f"test-{uuid.uuid4().hex[:8]}")
    with (
        QdrantServer() as server,
        closing(QdrantColdTier(server.settings(), generation, dimension, clock)) as tier,
    ):
        yield tier


def open_edge_tier(
    folder: Path, generation: str = GENERATION, dimension: int = DIMENSION, erase_within_s: float = 3600
) -> EdgeColdTier:
    identity = Generation(generation), dimension
    return EdgeColdTier(folder, *identity, ColdSettings(), SetClock(), erase_within_s=erase_within_s)


def fill(tier: EdgeColdTier | BruteColdTier, count: int) -> None:
    """Writes posts of which the best hits for the query `vectors(1)[0]` all lie in the same shard."""
    far = vectors(count)
    far[:64] = far[0] + 0.3 * far[:64]
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    posts = [
        post_embedding(f"p{n:04}", vector=vector, author=f"m{n % 7}", created_at_us=NOW + n)
        for n, vector in enumerate(far)
    ]
    for first in range(0, count, 50):
        tier.write("post", index_records(*posts[first : first + 50], first=first))
