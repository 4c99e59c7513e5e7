"""Looks up the member who asks: the vector, and the posts acted on and hidden, from the cold tier.

Members seen lately are cached for a while. While the cold tier cannot answer, they still get posts from the hot tier,
without the ones that they hid.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

from cachetools import TTLCache

from indexer.errors import IndexerError
from indexer.tiers import ColdReader, StoredMember
from schemas.ids import MemberId

CACHED_MEMBERS: Final = 500
"""A member with full lists of acted and hidden posts takes some 300 kB, so the cache takes 150 MB at most."""
CACHED_S: Final = 600.0
"""A deleted member who does not ask again is forgotten after this time."""


class MemberLookup(NamedTuple):
    """`member` is None if it was never written, or if it cannot be read now. Then `failure` says why it cannot."""

    member: StoredMember | None
    failure: str | None = None


class Members:
    """Any thread may ask."""

    def __init__(self, cold: ColdReader, clock: Callable[[], float] = time.monotonic) -> None:
        self._cold = cold
        self._lock = Lock()
        self._cache: TTLCache[MemberId, StoredMember] = TTLCache(CACHED_MEMBERS, CACHED_S, clock)

    def find(self, member_id: MemberId) -> MemberLookup:
        try:
            member = self._cold.members([member_id])[0]
        except IndexerError as error:
            with self._lock:
                return MemberLookup(self._cache.get(member_id), str(error))
        with self._lock:
            self._cache.pop(member_id, None)
            if member is not None and not member.deleted:
                self._cache[member_id] = member
        return MemberLookup(member)

    def forget_expired(self) -> None:
        """Frees the memory of cached members that are too old to be used."""
        with self._lock:
            self._cache.expire()
