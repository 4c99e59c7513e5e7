"""Keeps answers of the cold tier, so that the next equal question needs only the hot tier.

A kept answer stays exact for as long as the hot tier holds every change since it was made: while in every partition the
hot tier's floor is at or before the answer's position. What has changed since is hidden by the hot tier's copy, and
comes in from there.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock
from typing import Final, NamedTuple

import msgspec

from indexer.tiers import NO_FILTERS, Filters, Offsets
from retriever.answer.cold.cold_answers import CANDIDATE_BYTES, ColdAnswer
from retriever.answer.wholeness import covers
from schemas.embeddings import Vector
from schemas.ids import MemberId, Revision

_DIGEST_BYTES: Final = 16
_ID_BYTES: Final = 180
"""Of one id of some 13 characters in the id table, measured."""


class Asked(NamedTuple):
    """What two questions have in common whose cold answers are the same, as long as the member's version is."""

    who: str | bytes
    """The member, or a digest of the vector."""
    filters: bytes
    """A digest of the request's filters. The posts that the member hid follow from the member's revision."""
    hide_acted: bool = False
    hide_seen: bool = False
    own_posts: bool = False
    interest: int = 0
    """Of a member with several vectors: which of them, from 1 on. 0: the member's one vector."""


class Version(NamedTuple):
    """With which record of the member a question is asked. A context that was encoded again has its old revision and
    another vector."""

    revision: Revision
    vector: bytes = b""
    """A digest of the vector."""


NO_MEMBER: Final = Version(Revision(0))
"""Of a question by no member."""


def version_of(revision: Revision, vector_D: Vector | None) -> Version:
    return Version(revision) if vector_D is None else Version(revision, _digest_of_vector(vector_D))


def asked_by_member(member_id: MemberId, filters: Filters, *, acted: bool, seen: bool, own: bool) -> Asked:
    return Asked(member_id, _digest(filters), acted, seen, own)


def asked_by_vector(vector_D: Vector, filters: Filters) -> Asked:
    return Asked(_digest_of_vector(vector_D), _digest(filters))


def _digest_of_vector(vector_D: Vector) -> bytes:
    return blake2b(vector_D.tobytes(), digest_size=_DIGEST_BYTES).digest()


def _digest(filters: Filters) -> bytes:
    """Equal for equal filters. The sets themselves may hold 10,000 ids, so they are not kept."""
    if filters == NO_FILTERS:
        return b""
    fields = [sorted(field) if isinstance(field, frozenset) else field for field in filters]
    return blake2b(msgspec.msgpack.encode(fields), digest_size=_DIGEST_BYTES).digest()


class KeptCounts(NamedTuple):
    answers: int
    num_bytes: int
    """Without the ids."""
    found: int
    """How many questions found their cold answer here, since the start."""
    missed: int
    """How many had to ask the cold tier."""


class _Kept(NamedTuple):
    answer: ColdAnswer
    version: Version
    used_at_s: float


class KeptAnswers:
    """At most `max_bytes` of answers; the least recently used one goes. Any thread may call the methods.

    One answer is kept for each `Asked`: an answer for another version of the member takes the place of the older one.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._id_share = 0.0
        """Bytes of ids for each byte of answers."""
        self._lock = Lock()
        self._kept: OrderedDict[Asked, _Kept] = OrderedDict()
        self._num_bytes = 0
        self.found = 0
        self.missed = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def counts(self) -> KeptCounts:
        return KeptCounts(len(self._kept), self._num_bytes, self.found, self.missed)

    def find(self, asked: Asked, version: Version, num_hits: int, floor: Offsets) -> ColdAnswer | None:
        """An answer for this version of the member that has `num_hits` hits, or all there are, and that is exact
        together with a hot tier of this floor."""
        with self._lock:
            answer = self._get(asked, version, num_hits, floor)
            if answer is None:
                self.missed += 1
            else:
                self.found += 1
                self._kept[asked] = self._kept[asked]._replace(used_at_s=self._clock())
                self._kept.move_to_end(asked)
            return answer

    def peek(self, asked: Asked, version: Version, num_hits: int, floor: Offsets) -> ColdAnswer | None:
        """As `find`, but it does not count as use."""
        with self._lock:
            return self._get(asked, version, num_hits, floor)

    def keep(self, asked: Asked, version: Version, answer: ColdAnswer) -> None:
        """The answer of the newer revision stays, and of one revision the one that was asked for last."""
        with self._lock:
            kept = self._kept.get(asked)
            if kept is not None and kept.version.revision > version.revision:
                return
            self._drop(asked)
            self._kept[asked] = _Kept(answer, version, self._clock())
            self._num_bytes += answer.num_bytes
            while self._kept and self._num_bytes * (1 + self._id_share) > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def weigh_ids(self, num_ids: int) -> None:
        """Counts the ids too, of which the id table holds so many that only these answers refer to. As a share of the
        answers, because the table forgets the ids of a dropped answer only some seconds later."""
        with self._lock:
            num_candidates = self._num_bytes // CANDIDATE_BYTES
            id_bytes = max(min(num_ids, num_candidates), 0) * _ID_BYTES
            self._id_share = id_bytes / max(self._num_bytes, 1)

    def forget_all(self) -> None:
        with self._lock:
            self._kept.clear()
            self._num_bytes = 0

    def forget_unused(self, age_s: float) -> None:
        """Drops the answers that nobody has asked for, or made, in the last `age_s` seconds. The member may have been
        deleted since."""
        before_s = self._clock() - age_s
        with self._lock:
            # The least recently used one comes first.
            while self._kept and next(iter(self._kept.values())).used_at_s < before_s:
                self._drop(next(iter(self._kept)))

    def forget_outdated(self, floor: Offsets) -> int:
        """Drops the answers that no question can use any more. Returns how many."""
        with self._lock:
            entries = list(self._kept.items())
        # Answers that were made one after the other share their position, so few are compared with the floor.
        positions = {id(kept.answer.position): kept.answer.position for _, kept in entries}
        outdated_positions = {key for key, position in positions.items() if not covers(floor, position)}
        outdated = [(asked, kept) for asked, kept in entries if id(kept.answer.position) in outdated_positions]
        for asked, kept in outdated:
            with self._lock:
                if self._kept.get(asked) is kept:
                    self._drop(asked)
        return len(outdated)

    def _get(self, asked: Asked, version: Version, num_hits: int, floor: Offsets) -> ColdAnswer | None:
        kept = self._kept.get(asked)
        if kept is None or kept.version != version or not _serves(kept.answer, num_hits, floor):
            return None
        return kept.answer

    def _drop(self, asked: Asked) -> None:
        kept = self._kept.pop(asked, None)
        if kept is not None:
            self._num_bytes -= kept.answer.num_bytes


def _serves(answer: ColdAnswer, num_hits: int, floor: Offsets) -> bool:
    return (answer.complete or len(answer.columns.numbers_C) >= num_hits) and covers(floor, answer.position)
