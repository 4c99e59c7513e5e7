"""The cold tier in the process of its one owner, on the embedded Qdrant engine.

Owns the folder (a lock file says so), the ledger and the order of both. One lock: the engine holds Python's lock in
every call, so searches wait for each other and for writes anyway; a write is therefore cut into short parts.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec
import structlog

from indexer.cold import shards
from indexer.cold.point_table import Head, PointTable
from indexer.cold.shards import Point, Shards, Stored
from indexer.errors import TierRefused, TierUnavailable
from indexer.records import check, newest, sorted_hits
from indexer.settings import ColdSettings
from indexer.tiers import (
    NO_FILTERS,
    Beat,
    Clock,
    Filters,
    Hits,
    IndexRecord,
    StoredMember,
    StoredPost,
    no_beat,
)
from schemas.embeddings import MemberEmbedding, PostEmbedding, Vector, unpack_vector
from schemas.files import write_whole
from schemas.ids import Generation, Kind, MemberId, Micros, PostId, Revision
from schemas.times import now_us

_WRITE_POINTS: Final = 200
"""At once, before searches may go on: about 8 ms."""
_REWRITE_S: Final = 30.0
"""In one sweep: a full shard of 128 numbers took 5.0 s, and the index loop waits meanwhile."""
_LATE: Final = 0.75
"""Of the time within which deleted vectors must be gone: a warning while there is time to help."""
_END: Final = object()
_LOAD_PAGE: Final = 5_000
_SCROLL_PAGE: Final = 2_000
_MANIFEST: Final = "cold.json"
_LOCK: Final = "owner.lock"

log = structlog.get_logger(__name__)

_heads = msgspec.json.Decoder(Head)
_bodies = msgspec.json.Decoder(tuple[list[str], list[str]])
_encoder = msgspec.json.Encoder()


class EdgeColdTier:
    """The methods say what `ColdTier` says. After a kill, records since the last flush are to be written again; of a
    tier that was just opened, a record equal to what it holds counts as a change once."""

    def __init__(
        self,
        folder: Path,
        generation: Generation,
        dimension: int,
        settings: ColdSettings,
        clock: Clock = now_us,
        *,
        erase_within_s: float = 24 * 3600,
    ) -> None:
        """Raises TierRefused for a folder of another generation, TierUnavailable where another process owns it."""
        self._dimension = dimension
        self._clock = clock
        self._erase_within_s = erase_within_s
        self._lock = Lock()
        self._owner = _own(folder)
        try:
            _claim(folder, generation, dimension, settings)
            self._posts = _Kind(Shards(folder / "posts", dimension, quantize=settings.quantize, clock=clock))
            self._members = _Kind(Shards(folder / "members", dimension, quantize=False, clock=clock))
        except BaseException:
            os.close(self._owner)
            raise

    def write(self, kind: Kind, records: Sequence[IndexRecord]) -> int:
        for record in records:
            check(record.embedding, self._dimension)
        held = self._of(kind)
        kept, changes = newest(records, held.ledger.guard)
        now = self._clock()
        for start in range(0, len(kept), _WRITE_POINTS):
            with self._lock:
                held.write(kept[start : start + _WRITE_POINTS], now)
        with self._lock:
            held.shards.tidy()
        return changes

    def flush(self) -> None:
        for held in (self._posts, self._members):
            with self._lock:
                held.shards.flush()

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        ledger = self._posts.ledger
        with self._lock:
            live = ledger.is_live()
            passing = live if filters == NO_FILTERS else ledger.passing(filters)
            found = self._posts.shards.search(query_D, k, live, passing)
            ids = ledger.ids(found.numbers)
            revisions = ledger.revisions(found.numbers)
        return sorted_hits(ids, found.scores, revisions)

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        ledger = self._posts.ledger
        with self._lock:
            numbers = [ledger.number(post_id) for post_id in ids]
            known = [number for number in numbers if number is not None]
            heads = dict(zip(known, ledger.heads(known), strict=True))
            stored = self._posts.shards.get(known, vectors=True) if with_vectors else {}
        return [None if number is None else _post(heads[number], stored.get(number)) for number in numbers]

    def members(self, ids: Sequence[MemberId]) -> list[StoredMember | None]:
        with self._lock:
            numbers = [self._members.ledger.number(member_id) for member_id in ids]
            known = [number for number in numbers if number is not None]
            stored = self._members.shards.get(known, vectors=True)
        return [None if number is None else _member(stored[number]) for number in numbers]

    def scroll_posts(self) -> Iterator[StoredPost]:
        with self._lock:
            numbers = self._posts.ledger.live_numbers()
        for start in range(0, len(numbers), _SCROLL_PAGE):
            with self._lock:
                heads = self._posts.ledger.heads(numbers[start : start + _SCROLL_PAGE])
            yield from (_post(head, None) for head in heads if not head.deleted)

    def count(self, kind: Kind) -> int:
        return self._of(kind).ledger.live

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        swept = sum(self._sweep(held, older_than_us, beat) for held in (self._posts, self._members))
        self._erase(beat)
        return swept

    def oldest_erasure_s(self) -> float:
        """Seconds since the oldest deletion whose vector is still in the files; 0 if there is none. Any thread."""
        since = [since for held in (self._posts, self._members) for since in held.shards.erased_since().values()]
        return max(0.0, (self._clock() - min(since)) / 1e6) if since else 0.0

    def close(self) -> None:
        with self._lock:
            self._posts.shards.close()
            self._members.shards.close()
            os.close(self._owner)

    def _sweep(self, held: "_Kind", older_than_us: Micros, beat: Beat) -> int:
        old = held.ledger.tombstones(older_than_us)
        for start in range(0, len(old), _WRITE_POINTS):
            with self._lock:
                numbers = old[start : start + _WRITE_POINTS]
                held.shards.remove(numbers)
                held.ledger.remove(numbers)
            beat()
        return len(old)

    def _erase(self, beat: Beat) -> None:
        """Writes shards anew until the time is used up, those with the oldest deletion first. One that fails keeps
        nobody waiting. Raises TierUnavailable for the last that failed."""
        until = time.monotonic() + _REWRITE_S
        failure: TierUnavailable | None = None
        for _, place, held in self._due_for_erasure():
            try:
                self._rewrite(held, place, beat)
            except TierUnavailable as error:
                failure = error
            if time.monotonic() >= until:
                break
        oldest_s = self.oldest_erasure_s()
        if oldest_s > _LATE * self._erase_within_s:
            log.warning(
                "deleted vectors may stay in the files for longer than kafka.erase_within_s; "
                "see that sweeps succeed, or give the cold tier a faster disk",
                oldest_deletion_s=round(oldest_s),
                erase_within_s=self._erase_within_s,
            )
        if failure is not None:
            raise failure

    def _due_for_erasure(self) -> list[tuple[Micros, int, Shards]]:
        """When, in which shard and of which kind; the oldest first."""
        latest = self._clock() - self._erase_within_s / 2 * 1e6
        due = [
            (since, place, held.shards)
            for held in (self._posts, self._members)
            for place, since in held.shards.erased_since().items()
            if since <= latest
        ]
        return sorted(due, key=lambda one: one[:2])

    def _rewrite(self, held: Shards, place: int, beat: Beat) -> None:
        with closing(held.rewrite(place)) as steps:
            ended = False
            while not ended:
                with self._lock:
                    ended = next(steps, _END) is _END
                beat()

    def _of(self, kind: Kind) -> "_Kind":
        return self._posts if kind == "post" else self._members


class _Kind:
    """Shards and ledger of one kind; the ledger follows the shards."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.ledger = PointTable()
        outdated: list[int] = []
        for page in shards.heads(_LOAD_PAGE):
            outdated += self.ledger.load([number for number, _ in page], [_heads.decode(head) for _, head in page])
        shards.remove(outdated, with_vectors=True)
        self.ledger.find_gaps()

    def write(self, records: Sequence[IndexRecord], now: Micros) -> None:
        numbers = [self.ledger.give(record.embedding.entity_id) for record in records]
        heads = [_head(record, now) for record in records]
        try:
            self.shards.upsert(
                [_point(*one) for one in zip(numbers, records, heads, strict=True)],
            )
        except TierUnavailable:
            for number in numbers:
                self.ledger.give_back(number)
            raise
        self.ledger.put(numbers, heads, sure=True)


def _head(record: IndexRecord, now: Micros) -> Head:
    one = record.embedding
    place = (one.entity_id, one.revision, one.deleted, now, record.partition, record.offset)
    if isinstance(one, PostEmbedding):
        return Head(*place, one.author_id, one.language, one.created_at_us)
    return Head(*place)


def _point(number: int, record: IndexRecord, head: Head) -> Point:
    one = record.embedding
    vector = None if one.deleted else unpack_vector(one.vector)
    body = None
    if isinstance(one, MemberEmbedding) and not one.deleted:
        body = _encoder.encode((one.acted, one.hidden)).decode()
    return Point(number, vector, _encoder.encode(head).decode(), body)


def _post(head: Head, stored: Stored | None) -> StoredPost:
    return StoredPost(
        PostId(head.entity_id),
        Revision(head.revision),
        head.deleted,
        MemberId(head.author_id),
        head.language,
        Micros(head.created_at_us),
        None if stored is None else stored.vector,
    )


def _member(stored: Stored) -> StoredMember:
    head = _heads.decode(stored.head)
    acted, hidden = ([], []) if stored.body is None else _bodies.decode(stored.body)
    return StoredMember(
        MemberId(head.entity_id),
        Revision(head.revision),
        head.deleted,
        [PostId(post_id) for post_id in acted],
        [PostId(post_id) for post_id in hidden],
        stored.vector,
    )


def _own(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    owner = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(owner)
        raise TierUnavailable(f"{folder} has another owner; one process at a time holds the cold tier") from error
    return owner


def _claim(folder: Path, generation: Generation, dimension: int, settings: ColdSettings) -> None:
    """The folder belongs to one generation for good."""
    mine: dict[str, Any] = {
        "generation": generation,
        "dimension": dimension,
        "quantize": settings.quantize,
        "shard_points": shards.SHARD_POINTS,
    }
    path = folder / _MANIFEST
    if not path.exists():
        write_whole(path, json.dumps(mine).encode())
        return
    theirs = json.loads(path.read_text())
    if theirs != mine:
        raise TierRefused(f"{folder} holds the cold tier of {theirs}, not of {mine}; use another data folder")
