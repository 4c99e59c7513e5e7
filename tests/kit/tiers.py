"""Posts, members and vectors for tests of the tiers."""

import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from indexer.brute import BruteColdTier
from indexer.cold.edge import EdgeColdTier
from indexer.cold.remote import ColdServer, RemoteColdTier
from indexer.settings import ColdSettings
from indexer.tiers import Clock, ColdTier, Hits, IndexRecord
from schemas.embeddings import Embedding, MemberEmbedding, PostEmbedding, Vector, pack_vector
from schemas.ids import Generation, MemberId, Micros, Offset, Partition, PostId, Revision

if TYPE_CHECKING:
    from indexer.cold.qdrant import QdrantColdTier

DIMENSION: Final = 16
GENERATION: Final = Generation("demo-0123abcd")
HOUR_US: Final = 3_600_000_000
NOW: Final = Micros(1_760_000_000_000_000)

ColdMaker = Callable[[Path, Clock], Iterator[ColdTier]]


class SetClock:
    def __init__(self, now: int = NOW) -> None:
        self.now = Micros(now)

    def __call__(self) -> Micros:
        return self.now


def vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vector:
    """(count, dimension), of length one."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def post(
    name: str,
    revision: int = 1,
    *,
    vector: Vector | None = None,
    author: str = "m1",
    language: str | None = "en",
    created_at_us: int = NOW,
) -> PostEmbedding:
    """A live post; its vector follows from its name unless one is given."""
    chosen = vectors(1, seed=zlib.crc32(f"{name} {revision}".encode()))[0] if vector is None else vector
    return PostEmbedding(
        PostId(name),
        Revision(revision),
        False,
        MemberId(author),
        language,
        Micros(created_at_us),
        pack_vector(chosen),
    )


def deleted_post(name: str, revision: int, *, created_at_us: int = NOW) -> PostEmbedding:
    return PostEmbedding(PostId(name), Revision(revision), True, MemberId("m1"), None, Micros(created_at_us), b"")


def member(
    name: str, revision: int = 1, *, acted: tuple[str, ...] = (), hidden: tuple[str, ...] = (), empty: bool = False
) -> MemberEmbedding:
    body = b"" if empty else pack_vector(vectors(1, seed=revision)[0])
    ids = [PostId(one) for one in acted], [PostId(one) for one in hidden]
    return MemberEmbedding(MemberId(name), Revision(revision), False, *ids, "en", body)


def deleted_member(name: str, revision: int) -> MemberEmbedding:
    return MemberEmbedding(MemberId(name), Revision(revision), True, [], [], None, b"")


def records(*embeddings: Embedding, first: int = 0, partition: int = 0) -> list[IndexRecord]:
    """With offsets in their order."""
    numbered = enumerate(embeddings, first)
    return [IndexRecord(one, Partition(partition), Offset(offset)) for offset, one in numbered]


def same_hits(left: Hits, right: Hits) -> None:
    assert left.post_ids == right.post_ids
    assert left.revisions == right.revisions
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


@contextmanager
def qdrant(clock: Clock, dimension: int) -> Iterator["QdrantColdTier"]:
    """Of a generation that nobody has used before."""
    from indexer.cold.qdrant import QdrantColdTier
    from tests.kit.qdrant_server import QdrantServer

    generation = Generation(f"test-{uuid.uuid4().hex[:8]}")
    with (
        QdrantServer() as server,
        closing(QdrantColdTier(server.settings(), generation, dimension, clock)) as tier,
    ):
        yield tier
