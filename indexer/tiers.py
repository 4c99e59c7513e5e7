"""The two tiers as protocols, and the plain data that goes in and out of them.

Shapes: B queries or points, D dimensions, K hits. Vectors are float32, C-contiguous, of length one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from schemas.embeddings import Embedding, Vector
from schemas.ids import Kind, MemberId, Micros, Offset, Partition, PostId, Revision

Scores = npt.NDArray[np.float32]
Clock = Callable[[], Micros]
"""Now, in microseconds since 1970."""


Beat = Callable[[], None]
"""Called again and again by work that takes long: it still goes on."""


def no_beat() -> None:
    """Nobody looks."""


class Filters(NamedTuple):
    """What a post must satisfy to be scored at all. Both tiers apply the same ones, before scoring."""

    languages: frozenset[str] = frozenset()
    """Empty: any language."""
    created_after_us: Micros | None = None
    """Strictly after."""
    exclude_authors: frozenset[str] = frozenset()
    exclude_posts: frozenset[str] = frozenset()


NO_FILTERS = Filters()


class Hits(NamedTuple):
    """One query's hits, sorted by (-score, post id)."""

    post_ids: list[PostId]
    scores: Scores
    revisions: list[Revision]


class IndexRecord(NamedTuple):
    """An embedding with the place of its record, which travels into the payload."""

    embedding: Embedding
    partition: Partition
    offset: Offset


class StoredPost(NamedTuple):
    """A post as a tier holds it; a tombstone has `deleted` set and no vector."""

    post_id: PostId
    revision: Revision
    deleted: bool
    author_id: MemberId
    language: str | None
    created_at_us: Micros
    vector: Vector | None


class StoredMember(NamedTuple):
    member_id: MemberId
    revision: Revision
    deleted: bool
    acted: list[PostId]
    hidden: list[PostId]
    vector: Vector | None


class ColdReader(Protocol):
    """The whole corpus of one generation, posts and members, to be read. Many threads call it. Everything may block; a
    failing engine or server raises TierUnavailable, and the caller calls again with the same arguments."""

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        """The k live posts with the highest dot product; fewer when fewer pass the filters. 1 <= k <= 4096. Scores are
        of the full vectors. Of equal scores at the cut any may be given."""
        ...

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        """In the order asked, None for what was never written; tombstones are returned."""
        ...

    def members(self, ids: Sequence[MemberId]) -> list[StoredMember | None]:
        """In the order asked, with vectors; tombstones are returned."""
        ...

    def scroll_posts(self) -> Iterator[StoredPost]:
        """All live posts without vectors, in any order, each at least once if it is live throughout."""
        ...

    def count(self, kind: Kind) -> int:
        """Live entities."""
        ...

    def close(self) -> None: ...


class ColdTier(ColdReader, Protocol):
    """With what its one owner does, the index loop, from one thread. Every method is idempotent. TierRefused names the
    record and means that nothing of the call was applied."""

    def write(self, kind: Kind, records: Sequence[IndexRecord]) -> int:
        """Applies records of one kind in the order given; several of one entity may be among them.

        A record whose revision is not above the stored one (a tombstone's included) changes nothing. A deleted
        embedding becomes a tombstone that searches skip: a point without a vector. Returns how many changed
        something; an owner that was just started counts a repeated record once more. Durable only after `flush`.
        """
        ...

    def flush(self) -> None:
        """Returns when all that was written before survives a kill -9 and, on one machine, a power cut."""
        ...

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        """Removes tombstones written before that time, and from the files the vectors of what was deleted half of
        `erase_within_s` ago or earlier (a server does that in its own time). May take minutes, and calls `beat` after
        each step. Returns how many tombstones."""
        ...


class HotTier(Protocol):
    """The newest posts, in memory next to the query.

    `upsert` and `expire` are called by the hot feed's thread alone; the rest from many threads, also during them.
    Nothing here does I/O. A post is one of: live, deleted (its revision is kept for the window), unknown.
    """

    def upsert(self, embeddings: Sequence[Embedding]) -> int:
        """Applies post embeddings in order. An older or equal revision changes nothing. What was created before
        the window's start, or before all others of a full tier, is not taken (and a live copy of it is dropped).
        Returns how many changed something."""
        ...

    def expire(self, now_us: Micros) -> int:
        """Drops posts created before now - window, and deleted ones' revisions older than that. Returns how many."""
        ...

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        """The k live posts with the highest dot product; fewer when fewer pass the filters. 1 <= k <= 4096. What is
        upserted or expired meanwhile is seen whole or not at all, with its own score and revision."""
        ...

    def revisions(self, ids: Sequence[PostId]) -> list[Revision | None]:
        """Of live and of deleted posts; None for unknown ones. The merge hides cold copies with it."""
        ...

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]: ...

    def scroll_posts(self) -> Iterator[StoredPost]:
        """All posts live at the moment of the call, without vectors; one that changes before it is reached comes as it
        is then, or not at all."""
        ...

    def count(self) -> int: ...
