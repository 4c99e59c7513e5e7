"""The two tiers as protocols, and the plain data that goes into them and comes out.

Shapes: D dimensions. Vectors are float32, C-contiguous, of length one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from schemas.embeddings import Embedding, PostEmbedding, Vector
from schemas.ids import Kind, MemberId, Micros, Offset, Partition, PostId, Revision

Scores = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]
"""Post ids as numbers of one `IdTable` (`id_table.py`)."""
Clock = Callable[[], Micros]
"""Now, in microseconds since 1970."""

Beat = Callable[[], None]
"""A heartbeat: long work calls it again and again to show that it still goes on."""


def no_beat() -> None:
    """For callers whose progress nobody watches."""


class Filters(NamedTuple):
    """Which posts are scored at all. Both tiers apply the same filters, before scoring."""

    languages: frozenset[str] = frozenset()
    """Empty: any language, and posts without one."""
    created_after_us: Micros | None = None
    """A post of exactly this time does not pass."""
    exclude_authors: frozenset[str] = frozenset()
    exclude_posts: frozenset[str] = frozenset()
    created_before_us: Micros | None = None
    """A post of exactly this time does not pass."""
    only_authors: frozenset[str] | None = None
    """None: any author. An empty set: no post passes."""
    only_posts: frozenset[str] | None = None


NO_FILTERS = Filters()


class Hits(NamedTuple):
    """One query's hits, sorted by (-score, post id)."""

    post_ids: list[PostId]
    scores: Scores
    revisions: list[Revision]


class IndexRecord(NamedTuple):
    """An embedding, and which record of its topic it came from. A cold tier stores that with the point."""

    embedding: Embedding
    partition: Partition
    offset: Offset


Offsets = Mapping[Partition, Offset]
"""Of the topic of post embeddings, for each partition: the first offset that is not included, or from which on all is
included. Which of the two is said where it is used."""


class ColdHits(NamedTuple):
    """One query's hits in the cold tier, sorted by (-score, post id)."""

    post_ids: list[PostId]
    scores: Scores
    revisions: npt.NDArray[np.int64]
    position: Offsets
    """For each partition of the topic of post embeddings: every record before this offset was written before the search
    began, so that the hits take it into account. A later one may be in the hits too. A partition that is missing here
    counts as 0."""


class ColdQuery(NamedTuple):
    """One query of a batch to the cold tier."""

    vector_D: Vector
    k: int
    """1 <= k <= 4096."""
    filters: Filters = NO_FILTERS
    exact: bool = False
    """Every post is compared, by its full vector: neither a graph nor int8 decides what is looked at. Costs many times
    as much; it is for measuring the usual searches. Others get their turn meanwhile."""


class HotRecord(NamedTuple):
    """A post embedding, which record of its topic it came from, and that record's timestamp."""

    embedding: PostEmbedding
    partition: Partition
    offset: Offset
    at_us: Micros


class HotQuery(NamedTuple):
    """One query of a batch to the hot tier."""

    vector_D: Vector
    k: int
    """1 <= k <= 4096."""
    filters: Filters
    cold_numbers: Numbers
    """Hits of the cold tier, as numbers of the id table: the answer tells which of them the hot tier hides."""


class HotAnswer(NamedTuple):
    """All of it as of one moment: a record that is applied during the search is seen in all parts or in none."""

    numbers: Numbers
    """(H,): the hits as numbers of the id table, sorted by (-score, post id)."""
    scores: Scores
    revisions: npt.NDArray[np.int64]
    cold_revisions: npt.NDArray[np.int64]
    """(len(cold_numbers),): the revision of the live or deleted post that the hot tier holds; -1 for a post that it
    does not hold. With them the merge hides outdated hits of the cold tier."""
    floor: Offsets
    """From this offset on the hot tier holds the newest record of every post."""


class StoredPost(NamedTuple):
    """A post as a tier holds it. A tombstone has `deleted` set and no vector."""

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
    seen: list[PostId]
    interests: bytes = b""
    """As `schemas.embeddings.pack_interests` packs them."""


class ColdReader(Protocol):
    """Reads the whole corpus of one generation, posts and members. Called from many threads. Every method may block.

    If the engine or the server fails, a method raises TierUnavailable, and the caller tries again with the same
    arguments. Every method that asks takes `timeout_s`, the seconds within which it returns or raises TierLate. None:
    as long as the tier's own timeout allows, if it has one. Inside the tier's own process only the wait for other
    calls is bounded, not the work itself."""

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        """The k live posts with the highest dot product; fewer if fewer pass the filters. 1 <= k <= 4096. Scores are
        those of the full vectors. If several posts share the k-th score, any of them may be among the hits."""
        ...

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        """`search` for each of these queries, in their order; all of them succeed, or the call raises."""
        ...

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        """The position that a search would have if it began now; see `ColdHits`."""
        ...

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        """In the order of `ids`, None for a post that was never written. Tombstones are returned too."""
        ...

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        """In the order of `ids` and with vectors, None for a member that was never written. Tombstones are returned
        too."""
        ...

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        """All live posts without vectors, in any order. A post that is live all the time comes at least once.
        `timeout_s` is for each step, not for the whole scroll."""
        ...

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        """How many entities are live."""
        ...

    def close(self) -> None: ...


class ColdTier(ColdReader, Protocol):
    """Adds the methods that only the tier's one owner calls: the index loop, from one thread. Every method is
    idempotent. TierRefused names the record and means that nothing of the call was applied."""

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        """Applies records of one kind in their order. Several records may be of the same entity.

        A record changes nothing unless it is newer than the stored one: its revision is higher, or it has the same
        revision and comes from a later offset of the same partition. Tombstones are records too. A deleted embedding
        becomes a tombstone, a point without a vector, which searches skip. Returns how many records changed something.
        An owner that was just started may count a repeated record once more. Durable only after `flush`.

        With `again` the stored record itself is written too, to mend a point that was damaged. Then the topic must hold
        no other record of these entities between each record and the last offset of its partition in this call.
        """
        ...

    def flush(self) -> None:
        """Returns when everything that was written before survives a kill -9 and, on one machine, a power cut."""
        ...

    def reached(self, offsets: Offsets) -> None:
        """From now on these offsets of the topic of post embeddings are the tier's position in these partitions.

        Call it when every record before them is durable here, or is one that no tier will ever hold: a dead letter, or
        a record that the broker has no longer. When the owner starts, the committed offsets are the position. Kept in
        memory only, so that no crash leaves a position above what is durable. Does not block."""
        ...

    def is_empty(self) -> bool:
        """Whether it holds nothing at all, not even a tombstone. If records were indexed before, they are lost."""
        ...

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        """Removes the tombstones that were written before that time, and returns how many.

        Also erases the vectors of deleted entities from the files, once half of `erase_within_s` has passed since the
        deletion. A server does that on its own. May take minutes, and calls `beat` after each step."""
        ...


class SnapshotMoment(NamedTuple):
    """What a snapshot of the hot tier stands for."""

    next_offsets: Offsets
    """For each partition the offset of the first record that the snapshot does not contain."""
    taken_at_us: Micros
    """Posts that were deleted later are still in the snapshot's files, so they must be gone in time after this."""


class HotTier(Protocol):
    """The tail of the log of post embeddings, in the memory of the process that answers queries.

    It holds one record of each post: the newest one, live or deleted, if it lies at or after its partition's *floor*.
    So whoever has all records before the floor from elsewhere misses nothing. A post leaves when its record is the
    oldest of its partition and older than the window, or when the tier is full; then the floor moves behind it.

    One thread, the hot feed's, calls `begin`, `apply`, `expire`, `save` and `load`. Many threads call the other
    methods, also at the same time. Nothing here does I/O, except `save` and `load`.

    Post ids in queries and answers are numbers of the `IdTable` that the tier was made with. The tier holds a reference
    to the number of each of its posts.
    """

    def begin(self, floor: Offsets) -> None:
        """The records of these partitions will be applied from these offsets on. Call it before the first `apply`, and
        again for a partition that has lost records unread.

        Give 0 for a partition that is read from its very start, also if its first record has a higher offset. Records
        before the floor are forgotten; if the floor moves back, all records of the partition are, because they come
        again. Other partitions stay as they are. A partition that was never begun begins at its first record."""
        ...

    def apply(self, records: Sequence[HotRecord]) -> int:
        """Applies records in their order. Returns how many changed a post.

        Those of one partition come in the order of their offsets; records that come again change nothing. Of one
        revision the record at the later offset counts. An older revision does not change the post, but the post counts
        as changed by this newest record: it is held for as long as that one. Raises TierRefused, which names the post,
        if a vector does not fit; then nothing of the call is applied."""
        ...

    def expire(self, now_us: Micros) -> int:
        """Drops posts, live and deleted, whose newest record is older than the window. Returns how many.

        A partition is emptied in the order of its offsets. If timestamps do not grow with the offsets, a record stays
        for as long as one before it. Also erases the vectors of posts that are gone; call it every second or so."""
        ...

    def floor(self) -> Offsets:
        """For each partition the offset from which on the tier holds the newest record of every post. Says nothing
        about records that were not applied yet."""
        ...

    def search(self, queries: Sequence[HotQuery]) -> list[HotAnswer]:
        """For each query the k live posts with the highest dot product, of those that pass its filters; fewer if fewer
        pass. At most 64 queries. Scores are those of the full vectors. If several posts share the k-th score, any of
        them may be among the hits.

        All answers are of one moment, which lies between the call and the return. An answer's numbers can be turned
        into ids for at least some seconds. Raises TierUnavailable if the device failed; the tier repairs itself."""
        ...

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        """In the order of `ids`, None for a post that the tier does not hold. Tombstones are returned too.

        Raises TierLate if a device that hangs holds it up for `timeout_s`. None: waits for as long as that takes."""
        ...

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        """The posts that are live at the moment of the call, without vectors. If a post changes before the iterator
        reaches it, the iterator yields the changed post, or skips it if it is gone.

        Raises TierLate as `posts` does. `timeout_s` is for the call and for each step, not for the whole scroll."""
        ...

    def count(self) -> int:
        """How many posts are live."""
        ...

    def num_tombstones(self) -> int:
        """How many deleted posts it holds, so that they hide older copies in the cold tier."""
        ...

    def save(self, folder: Path, moment: SnapshotMoment, *, timeout_s: float | None = None) -> Future[None]:
        """Writes all that the tier holds now into the folder, in a thread of its own; searches and `apply` go on
        meanwhile. The folder's older snapshot stays until the new one is whole. Call it again only after the future is
        done. The future raises OSError. `moment` is stored as it is. Raises TierLate as `posts` does; then nothing is
        written."""
        ...

    def load(self, folder: Path) -> SnapshotMoment | None:
        """Takes over the posts and the floor of the snapshot in the folder; None if there is none. Only for a tier that
        holds nothing. Raises SnapshotRefused if it is damaged or was written with another dimension or format: delete
        it and read the topic instead. The tier is then still empty. May take seconds."""
        ...
