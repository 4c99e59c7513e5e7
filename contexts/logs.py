"""Bounded lists that grow at one end, kept in chunks so that an append changes one or two small pieces of a row.

Everything here is a value: a change gives a new log that shares the untouched chunks with the old one, and "is it the
same object" tells what has to be stored.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.contexts import HistoryEntry

IDS_IN_CHUNK: Final = 128
ENTRIES_IN_CHUNK: Final = 8
"""Chunks are small enough to be rewritten with every append, and large enough to make a row of few pieces."""

_SEPARATOR: Final = "\0"
"""No id contains it."""


class IdLog(Struct, frozen=True):
    """Ids, newest last. A chunk is its ids joined; `start` is the number of the first chunk there still is."""

    start: int = 0
    chunks: tuple[str, ...] = ()

    def append(self, entity_id: str, keep: int) -> "IdLog":
        """With at least the newest `keep` ids still in it. An id that is already among the newest changes nothing."""
        if not self.chunks:
            return IdLog(self.start, (entity_id,)) if keep else self
        tail = self.chunks[-1]
        if f"{_SEPARATOR}{entity_id}{_SEPARATOR}" in f"{_SEPARATOR}{tail}{_SEPARATOR}":
            return self
        length = tail.count(_SEPARATOR) + 1
        if length < IDS_IN_CHUNK:
            return IdLog(self.start, (*self.chunks[:-1], f"{tail}{_SEPARATOR}{entity_id}"))
        # All chunks but the new one are full.
        spare = max(0, (len(self.chunks) * IDS_IN_CHUNK + 1 - keep) // IDS_IN_CHUNK)
        return IdLog(self.start + spare, (*self.chunks[spare:], entity_id))

    def newest(self, keep: int | None = None) -> list[str]:
        """The newest `keep` ids, all unless said otherwise, each once, newest last."""
        found: dict[str, None] = {}
        for chunk in reversed(self.chunks):
            found.update(dict.fromkeys(reversed(chunk.split(_SEPARATOR))))
        return list(found)[:keep][::-1]


class History(Struct, frozen=True):
    """Entries in the order of their time, newest last. Equal (post, action, time) is there once."""

    start: int = 0
    chunks: tuple[tuple[HistoryEntry, ...], ...] = ()

    def entries(self) -> list[HistoryEntry]:
        return [entry for chunk in self.chunks for entry in chunk]

    def add(self, entry: HistoryEntry, keep: int) -> "History":
        """With the newest `keep` entries. Returns itself when the entry is there already, or is too old to be kept."""
        entries = self.entries()
        if not entries:
            return History(self.start, ((entry,),))
        if any(other.at_us == entry.at_us and _same(other, entry) for other in entries):
            return self
        if _order(entry) > _order(entries[-1]):
            return self._append(entry)._keep(len(entries) + 1, keep)
        kept = sorted([*entries, entry], key=_order)[-keep:]
        return self._rebuilt(kept) if entry in kept else self

    def without(self, post_id: str) -> "History":
        """Returns itself when the post is not in it."""
        entries = self.entries()
        kept = [entry for entry in entries if entry.post_id != post_id]
        return self if len(kept) == len(entries) else self._rebuilt(kept)

    def _append(self, entry: HistoryEntry) -> "History":
        tail = self.chunks[-1]
        if len(tail) < ENTRIES_IN_CHUNK:
            return replace(self, chunks=(*self.chunks[:-1], (*tail, entry)))
        return replace(self, chunks=(*self.chunks, (entry,)))

    def _keep(self, length: int, keep: int) -> "History":
        start, chunks = self.start, self.chunks
        while length > keep:
            first = chunks[0][length - keep :]
            length -= len(chunks[0]) - len(first)
            start, chunks = (start, (first, *chunks[1:])) if first else (start + 1, chunks[1:])
        return History(start, chunks)

    def _rebuilt(self, entries: list[HistoryEntry]) -> "History":
        pieces = range(0, len(entries), ENTRIES_IN_CHUNK)
        return History(self.start, tuple(tuple(entries[at : at + ENTRIES_IN_CHUNK]) for at in pieces))


def _same(one: HistoryEntry, other: HistoryEntry) -> bool:
    """Of two entries with the same time."""
    return one.post_id == other.post_id and one.action == other.action


def _order(entry: HistoryEntry) -> tuple[int, str, str]:
    return entry.at_us, entry.post_id, entry.action
