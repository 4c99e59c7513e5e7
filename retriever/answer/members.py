"""Who asks: a member's vector and the posts acted on and hidden, from the cold tier.

The last members seen are kept for a while, so that they still get an answer from the hot tier, without what they hid,
while the cold tier cannot say anything.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

from indexer.errors import IndexerError
from indexer.tiers import ColdReader, StoredMember
from schemas.ids import MemberId

KEPT_MEMBERS: Final = 500
"""A member with full lists of acted and hidden posts takes some 300 kB: 150 MB at the very most."""
KEPT_S: Final = 600.0
"""A deleted member who has not asked since is forgotten after this time."""


class FoundMember(NamedTuple):
    """`member` is None for one that was never written, and for one that cannot be read; then `failure` says why."""

    member: StoredMember | None
    failure: str | None = None


class Members:
    """Any thread may ask."""

    def __init__(self, cold: ColdReader, clock: Callable[[], float] = time.monotonic) -> None:
        self._cold = cold
        self._clock = clock
        self._lock = Lock()
        self._kept: OrderedDict[MemberId, tuple[float, StoredMember]] = OrderedDict()

    def find(self, member_id: MemberId) -> FoundMember:
        try:
            member = self._cold.members([member_id])[0]
        except IndexerError as error:
            return FoundMember(self._recall(member_id), str(error))
        self._keep(member_id, member)
        return FoundMember(member)

    def forget_old(self) -> None:
        """Those that no answer would be given from any more."""
        with self._lock:
            while self._kept and self._clock() - next(iter(self._kept.values()))[0] >= KEPT_S:
                self._kept.popitem(last=False)

    def _keep(self, member_id: MemberId, member: StoredMember | None) -> None:
        with self._lock:
            self._kept.pop(member_id, None)
            if member is None or member.deleted:
                return
            self._kept[member_id] = (self._clock(), member)
            if len(self._kept) > KEPT_MEMBERS:
                self._kept.popitem(last=False)

    def _recall(self, member_id: MemberId) -> StoredMember | None:
        with self._lock:
            seen_s, member = self._kept.get(member_id, (0.0, None))
            return member if member is not None and self._clock() - seen_s < KEPT_S else None
