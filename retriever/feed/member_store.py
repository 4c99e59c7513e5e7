"""The member store: the vectors and lists of members who changed or asked lately, in memory next to the query.

It is for members what the hot tier is for posts. Of each partition of the topic it has read all records from some
offset on. Its *floor* is the offset from which on it still holds the newest record of every member. It holds at most
`capacity` members; the least recently used one goes, and the floor moves behind that member's record. What it does not
hold, the caller asks of the cold tier and puts in with `refill`. What the cold tier says counts as the newest where the
floor is at or below what had been indexed before it was asked: then the cold tier knew every record that the store has
dropped. Knows neither Kafka nor requests.

Shapes: D dimensions, S slots.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, NamedTuple

from indexer.records import check_vector
from indexer.tiers import IndexRecord, Offsets, StoredMember
from retriever.feed.member_rows import HeldMember, MemberRows, Row, row_of_cold_member, row_of_record
from retriever.reasons import Code, Reason
from schemas.ids import MemberId, Offset, Partition

ASKED_LATELY_S: Final = 600.0
"""Whoever asked within this time is likely to ask again soon."""

_LIST_BYTES_A_MEMBER: Final = 4096
"""Of the lists of all members together, on average: some 250 ids each. The longest lists take 60 kB. Interests, which
are kept with the lists, come on top."""
_NUMBER_BYTES: Final = 4
"""Of a vector."""
_FORGOTTEN_AT_ONCE: Final = 500
"""Members that are looked at before others who ask may go on."""
_NOT_INDEXED: Final = Reason(Code.COLD_BEHIND, "the index is behind, so a member's vector and lists may be outdated")


class Lookup(NamedTuple):
    """
    member, sure       the newest one, perhaps deleted; the cold tier need not be asked
    None, sure         never written; the cold tier need not be asked
    member, not sure   the cold tier may hold a newer one; if it does not answer, take this one
    None, not sure     not held here; ask the cold tier
    """

    member_id: MemberId
    member: HeldMember | None
    is_sure: bool
    indexed: Offsets
    """What the index stage was known to have written at the time of the lookup."""


class MemberCounts(NamedTuple):
    held: int
    """The deleted ones included."""
    num_bytes: int
    """Of vectors and lists."""
    found: int
    """How many members who asked were held here for sure, since the start."""
    missed: int
    """How many had to be asked of the cold tier."""
    evicted: int
    """How many were dropped because others needed their room."""


class Refilled(NamedTuple):
    member: HeldMember | None
    """The newer one of what the cold tier said and what the store holds. None: never written."""
    doubt: Reason | None
    """Why there may be a newer one; None if there is none."""


class MemberStore:
    """The member feed's thread calls `begin` and `apply`; any thread may call the other methods."""

    def __init__(
        self,
        capacity: int,
        dimension: int,
        *,
        indexed: Callable[[], Offsets],
        feed_problem: Callable[[], Reason | None],
        most_interests: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`indexed` gives for each partition of the members' topic an offset before which everything is in the cold
        tier. `feed_problem` gives None while the feed follows the topic closely. Both must not block.
        `most_interests`: of one member; each has a vector of its own."""
        self._capacity = capacity
        self._dimension = dimension
        self._list_bytes = capacity * (_LIST_BYTES_A_MEMBER + most_interests * dimension * _NUMBER_BYTES)
        self._indexed = indexed
        self._feed_problem = feed_problem
        self._clock = clock
        self._on_changed: Callable[[HeldMember], None] = _ignore
        self._lock = Lock()
        # All of the following is read and changed under the lock.
        self._rows = self._new_rows()
        self._slots: OrderedDict[MemberId, int] = OrderedDict()
        """The least recently used member first."""
        self._floor: dict[Partition, Offset] | None = None
        """None until the feed has said where it begins."""
        self._found = self._missed = self._evicted = 0

    def watch(self, on_changed: Callable[[HeldMember], None]) -> None:
        """From now on `on_changed` is called for each member who asked lately and whose record was replaced, also by
        its delete. The feed's thread calls it, so it must return quickly."""
        self._on_changed = on_changed

    def begin(self, floor: Offsets) -> None:
        """The feed reads on from these offsets, 0 where it reads from the topic's start. Drops everything: records
        between the last ones and these may be missing."""
        with self._lock:
            dropped, self._rows = self._rows, self._new_rows()
            self._slots = OrderedDict()
            self._floor = dict(floor)
        dropped.erase_all()

    def apply(self, records: Sequence[IndexRecord]) -> int:
        """Applies member embeddings in their order. An older revision changes nothing, and of one revision the record
        at the later offset counts. Returns how many records changed something. Raises TierRefused before anything is
        changed."""
        for record in records:
            check_vector(record.embedding, self._dimension)
        # The lock is taken for each record, so that nobody who asks waits for a whole batch.
        return sum(self._apply(row_of_record(record)) for record in records)

    def _new_rows(self) -> MemberRows:
        return MemberRows(self._capacity, self._dimension, max_list_bytes=self._list_bytes)

    def _apply(self, row: Row) -> bool:
        with self._lock:
            changed = self._put(row)
            asked_lately = changed and self._asked_lately(row.member_id)
        if asked_lately:
            self._on_changed(row.member())
        return changed

    def find(self, member_id: MemberId) -> Lookup:
        """Does not block. The member counts as having asked."""
        indexed = self._indexed()
        follows = self._feed_problem() is None
        with self._lock:
            member = self._asked(member_id)
            holds_all = self._floor is not None and not any(self._floor.values())
            is_sure = follows and (member is not None or holds_all)
            self._found += is_sure
            self._missed += not is_sure
        return Lookup(member_id, member, is_sure, indexed)

    def refill(self, lookup: Lookup, member: StoredMember | None) -> Refilled:
        """Takes what the cold tier said after a lookup that was not sure. It is kept only if no record that the store
        has seen and dropped can be newer."""
        said = None if member is None else row_of_cold_member(member)
        with self._lock:
            is_newest = self._knew_all_dropped(lookup.indexed)
            if is_newest and said is not None:
                self._put(said)
            held = self._asked(lookup.member_id)
        doubt = self._feed_problem() or (None if is_newest or held is not None else _NOT_INDEXED)
        if said is not None and (held is None or held.revision < said.revision):
            return Refilled(said.member(), doubt)
        return Refilled(held, doubt)

    def forget_cold_copies(self) -> None:
        """Drops what the cold tier said: its members were written again, perhaps with other vectors."""
        with self._lock:
            members = list(self._slots)
        for first in range(0, len(members), _FORGOTTEN_AT_ONCE):
            with self._lock:
                for member_id in members[first : first + _FORGOTTEN_AT_ONCE]:
                    self._forget_cold_copy(member_id)

    def _forget_cold_copy(self, member_id: MemberId) -> None:
        slot = self._slots.get(member_id)
        if slot is not None and self._rows.place(slot) is None:
            del self._slots[member_id]
            self._rows.erase(slot)
            self._rows.give_back(slot)

    def problem(self) -> Reason | None:
        """Why there may be newer records of members than those that are given. None if there are none."""
        indexed = self._indexed()
        with self._lock:
            knew_all = self._knew_all_dropped(indexed)
        return self._feed_problem() or (None if knew_all else _NOT_INDEXED)

    def count(self) -> int:
        """How many members it holds, the deleted ones included."""
        return len(self._slots)

    def counts(self) -> MemberCounts:
        with self._lock:
            return MemberCounts(
                len(self._slots), self._rows.num_bytes(), self._found, self._missed, evicted=self._evicted
            )

    def floor(self) -> Offsets:
        """Empty until the feed has said where it begins."""
        with self._lock:
            return dict(self._floor or {})

    def _knew_all_dropped(self, indexed: Offsets) -> bool:
        """Whether the cold tier knew every record that is not held here, when that much was indexed."""
        if self._floor is None:
            return False
        return all(offset <= indexed.get(partition, 0) for partition, offset in self._floor.items())

    def _put(self, row: Row) -> bool:
        """False if a record that is not older is held."""
        slot = self._slots.get(row.member_id)
        if slot is not None and not self._is_newer(row, slot):
            return False
        if slot is None:
            slot = self._rows.take_slot() if self._rows.has_free_slot() else self._drop_oldest()
            self._slots[row.member_id] = slot
        self._rows.put(slot, row)
        self._slots.move_to_end(row.member_id)
        while self._rows.too_many_bytes() and len(self._slots) > 1:
            self._rows.give_back(self._drop_oldest())
        return True

    def _is_newer(self, row: Row, slot: int) -> bool:
        """By revision. Of one revision a record counts more than what the cold tier said, and a later record more than
        an earlier one."""
        revision = self._rows.revision(slot)
        if revision != row.revision or row.place is None:
            return revision < row.revision
        held = self._rows.place(slot)
        return held is None or (held[0] == row.place[0] and held[1] < row.place[1])

    def _drop_oldest(self) -> int:
        """Erases the least recently used member, and returns the slot."""
        _, slot = self._slots.popitem(last=False)
        self._evicted += 1
        place = self._rows.place(slot)
        self._rows.erase(slot)
        if place is not None and self._floor is not None:
            partition, offset = place
            self._floor[partition] = max(self._floor.get(partition, Offset(0)), Offset(offset + 1))
        return slot

    def _asked(self, member_id: MemberId) -> HeldMember | None:
        slot = self._slots.get(member_id)
        if slot is None:
            return None
        self._slots.move_to_end(member_id)
        self._rows.asked_at_s[slot] = self._clock()
        return self._rows.member(slot, member_id)

    def _asked_lately(self, member_id: MemberId) -> bool:
        slot = self._slots.get(member_id)
        return slot is not None and bool(self._rows.asked_at_s[slot] > self._clock() - ASKED_LATELY_S)


def _ignore(_: HeldMember) -> None:
    """Until somebody watches."""
