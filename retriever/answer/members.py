"""Looks up the members who ask: their vectors, and the posts they acted on, hid and saw. In the member store first, and
those that it does not know for sure in the cold tier.

While the cold tier cannot answer, a member in the store still gets posts, without the ones that are known to be hidden.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from indexer.errors import IndexerError
from indexer.tiers import ColdReader
from retriever.answer.answer_builder import cold_problem
from retriever.feed.member_rows import HeldMember
from retriever.feed.member_store import Lookup, MemberStore, Refilled
from retriever.reasons import Code, Reason
from schemas.ids import MemberId

_MIN_TIMEOUT_S: Final = 0.001


class FoundMember(NamedTuple):
    """
    a member, sure        the newest one, perhaps deleted
    a member, not sure    there may be a newer one
    None, sure            never written
    None, not sure        not written as far as the cold tier knows, but the feed is behind
    None, unreadable      nothing is known about the member now: the cold tier does not answer, or the index is behind
                          what the store has read and dropped
    """

    member: HeldMember | None
    problem: Reason | None = None
    """Why that is not sure."""
    unreadable: bool = False


class Members:
    """Any thread may ask."""

    def __init__(self, store: MemberStore, cold: ColdReader, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._cold = cold
        self._clock = clock

    def find(self, ids: Sequence[MemberId], deadline_s: float) -> list[FoundMember]:
        """In the order of the ids. Asks the cold tier at most once."""
        lookups = [self._store.find(member_id) for member_id in ids]
        unsure = {lookup.member_id: lookup for lookup in lookups if not lookup.is_sure}
        found = self._ask_cold(list(unsure.values()), deadline_s) if unsure else {}
        return [FoundMember(lookup.member) if lookup.is_sure else found[lookup.member_id] for lookup in lookups]

    def _ask_cold(self, lookups: Sequence[Lookup], deadline_s: float) -> dict[MemberId, FoundMember]:
        timeout_s = max(deadline_s - self._clock(), _MIN_TIMEOUT_S)
        try:
            members = self._cold.members([lookup.member_id for lookup in lookups], timeout_s=timeout_s)
        except IndexerError as error:
            problem = cold_problem(error)
            return {
                lookup.member_id: FoundMember(lookup.member, problem, unreadable=lookup.member is None)
                for lookup in lookups
            }
        refilled = {
            lookup.member_id: self._store.refill(lookup, member)
            for lookup, member in zip(lookups, members, strict=True)
        }
        return {member_id: _found(refill) for member_id, refill in refilled.items()}


def _found(refill: Refilled) -> FoundMember:
    is_lost = refill.member is None and refill.doubt is not None and refill.doubt.code == Code.COLD_BEHIND
    return FoundMember(*refill, unreadable=is_lost)
