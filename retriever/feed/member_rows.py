"""Members as rows of arrays, for the member store: vectors in a matrix, revisions in an array, lists and interests as
packed bytes.

Knows no order and no lock. A row that is erased is overwritten at once, because its member may have been deleted.

Shapes: D dimensions, S slots.
"""

from functools import cached_property
from typing import Final, NamedTuple

import msgspec
import numpy as np

from indexer.tiers import IndexRecord, StoredMember
from schemas.embeddings import Interest, MemberEmbedding, Vector, unpack_interests, unpack_vector
from schemas.ids import MemberId, Offset, Partition, PostId, Revision

_NOWHERE: Final = -1
"""The partition of what the cold tier said: it does not say from which record it has it."""
_NEVER_S: Final = float("-inf")


class _PackedLists(msgspec.Struct, array_like=True):
    """Each list is packed by itself: mostly only one of them is asked for, and each may have thousands of ids. The
    interests are as in the record."""

    acted: msgspec.Raw
    hidden: msgspec.Raw
    seen: msgspec.Raw
    interests: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode_lists = msgspec.msgpack.Decoder(_PackedLists).decode
_decode_list = msgspec.msgpack.Decoder(list[PostId]).decode


def _pack(acted: list[PostId], hidden: list[PostId], seen: list[PostId], interests: bytes) -> bytes:
    return _encode([*(msgspec.Raw(_encode(ids)) for ids in (acted, hidden, seen)), interests])


_NO_LISTS: Final = _pack([], [], [], b"")


class HeldMember:
    """A copy of one member, which may be kept. Has the fields of `StoredMember`; the lists are decoded when they are
    first asked for."""

    def __init__(
        self, member_id: MemberId, revision: Revision, *, deleted: bool, vector: Vector | None, packed_lists: bytes
    ) -> None:
        self.member_id = member_id
        self.revision = revision
        self.deleted = deleted
        self.vector = vector
        """(D,). None if the member is deleted, or has neither a profile nor a history."""
        self._packed_lists = packed_lists

    @cached_property
    def acted(self) -> list[PostId]:
        return _decode_list(self._lists.acted)

    @cached_property
    def hidden(self) -> list[PostId]:
        return _decode_list(self._lists.hidden)

    @cached_property
    def seen(self) -> list[PostId]:
        return _decode_list(self._lists.seen)

    @cached_property
    def interests(self) -> list[Interest]:
        """Empty for a member that has one vector."""
        return unpack_interests(self._lists.interests)

    @cached_property
    def _lists(self) -> _PackedLists:
        return _decode_lists(self._packed_lists)


class Row(NamedTuple):
    """A member on its way into the rows."""

    member_id: MemberId
    revision: Revision
    deleted: bool
    vector: Vector | None
    packed_lists: bytes
    place: tuple[Partition, Offset] | None
    """Which record of the topic it is. None if the cold tier said it."""

    def member(self) -> HeldMember:
        return HeldMember(
            self.member_id, self.revision, deleted=self.deleted, vector=self.vector, packed_lists=self.packed_lists
        )


def row_of_record(record: IndexRecord) -> Row:
    embedding = record.embedding
    assert isinstance(embedding, MemberEmbedding)
    place = record.partition, record.offset
    if embedding.deleted:
        return Row(embedding.member_id, embedding.revision, True, None, _NO_LISTS, place)
    lists = _pack(embedding.acted, embedding.hidden, embedding.seen, embedding.interests)
    return Row(embedding.member_id, embedding.revision, False, unpack_vector(embedding.vector), lists, place)


def row_of_cold_member(member: StoredMember) -> Row:
    lists = _NO_LISTS if member.deleted else _pack(member.acted, member.hidden, member.seen, member.interests)
    return Row(member.member_id, member.revision, member.deleted, member.vector, lists, None)


class MemberRows:
    """Used by one thread at a time."""

    def __init__(self, capacity: int, dimension: int, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._list_bytes = 0
        # The system gives memory to a part of an array of zeros only when something is written to it.
        self._vectors_SD = np.zeros((capacity, dimension), np.float32)
        self._has_vector_S = np.zeros(capacity, np.bool_)
        self._deleted_S = np.zeros(capacity, np.bool_)
        self._revision_S = np.zeros(capacity, np.int64)
        self._partition_S = np.zeros(capacity, np.int32)
        self._offset_S = np.zeros(capacity, np.int64)
        self.asked_at_s = np.full(capacity, _NEVER_S)
        self._lists: list[bytearray] = []
        """Of the slots that were ever used. Arrays of bytes, because those can be overwritten."""
        self._free: list[int] = []

    def has_free_slot(self) -> bool:
        return bool(self._free) or len(self._lists) < len(self._revision_S)

    def take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._lists.append(bytearray())
        return len(self._lists) - 1

    def give_back(self, slot: int) -> None:
        """Of an erased row."""
        self._free.append(slot)

    def put(self, slot: int, row: Row) -> None:
        self._vectors_SD[slot] = 0 if row.vector is None else row.vector
        self._has_vector_S[slot] = row.vector is not None
        self._deleted_S[slot] = row.deleted
        self._revision_S[slot] = row.revision
        self._partition_S[slot], self._offset_S[slot] = (_NOWHERE, 0) if row.place is None else row.place
        self._put_lists(slot, row.packed_lists)

    def erase(self, slot: int) -> None:
        """Overwrites the vector and the lists."""
        self._vectors_SD[slot] = 0
        self._put_lists(slot, b"")
        self.asked_at_s[slot] = _NEVER_S

    def erase_all(self) -> None:
        """Overwrites all of it. The rows are of no use any more."""
        self._vectors_SD[: len(self._lists)] = 0
        for packed in self._lists:
            packed[:] = bytes(len(packed))

    def revision(self, slot: int) -> int:
        return int(self._revision_S[slot])

    def place(self, slot: int) -> tuple[Partition, Offset] | None:
        """Which record of the topic the row is. None if the cold tier said it."""
        partition = int(self._partition_S[slot])
        return None if partition == _NOWHERE else (Partition(partition), Offset(int(self._offset_S[slot])))

    def member(self, slot: int, member_id: MemberId) -> HeldMember:
        return HeldMember(
            member_id,
            Revision(self.revision(slot)),
            deleted=bool(self._deleted_S[slot]),
            vector=self._vectors_SD[slot].copy() if self._has_vector_S[slot] else None,
            packed_lists=bytes(self._lists[slot]),
        )

    def num_bytes(self) -> int:
        """Of the vectors of the slots in use, and of all lists."""
        num_used = len(self._lists) - len(self._free)
        return int(num_used * self._vectors_SD.itemsize * self._vectors_SD.shape[1]) + self._list_bytes

    def too_many_bytes(self) -> bool:
        """Whether the lists of all members together take more than they may."""
        return self._list_bytes > self._max_list_bytes

    def _put_lists(self, slot: int, packed: bytes) -> None:
        old = self._lists[slot]
        self._list_bytes += len(packed) - len(old)
        old[:] = bytes(len(old))
        self._lists[slot] = bytearray(packed)
