"""Bounded lists that grow at one end, kept in chunks so that an append changes one or two small pieces of a row.

Everything here is a value: a change gives a new log that shares the untouched chunks with the old one, and "is it the
same object" tells what has to be stored.
"""

from bisect import bisect_left
from typing import Final

from msgspec import Struct

from schemas.contexts import HistoryEntry

IDS_IN_CHUNK: Final = 64
ENTRIES_IN_CHUNK: Final = 8
"""The last chunk is stored again with every append, so it is small; the others are stored once."""

_SEPARATOR: Final = "\0"
"""No id contains it."""


class IdLog(Struct, frozen=True, gc=False):
    """Ids, newest last. A chunk is its ids joined; `start` is the number of the first chunk there still is."""

    start: int = 0
    chunks: tuple[str, ...] = ()

    def append(self, entity_id: str, keep: int) -> "IdLog":
        """With at least the newest `keep` ids still in it. An id that is already among the newest changes nothing."""
        if not self.chunks:
            return IdLog(self.start, (entity_id,)) if keep else self
        tail = self.chunks[-1]
        # Most ids are not in it, and a plain look is quick.
        if entity_id in tail and f"{_SEPARATOR}{entity_id}{_SEPARATOR}" in f"{_SEPARATOR}{tail}{_SEPARATOR}":
            return self
        if tail.count(_SEPARATOR) + 1 < IDS_IN_CHUNK:
            return IdLog(self.start, (*self.chunks[:-1], f"{tail}{_SEPARATOR}{entity_id}"))
        # All chunks but the new one are full.
        spare = max(0, (len(self.chunks) * IDS_IN_CHUNK + 1 - keep) // IDS_IN_CHUNK)
        return IdLog(self.start + spare, (*self.chunks[spare:], entity_id))

    def lost(self, later: "IdLog") -> list[str]:
        """The ids in this log that are no more in `later`, which it has become by appends."""
        gone = self.chunks[: later.start - self.start]
        if not gone:
            return []
        still_there = set(later.newest())
        return [entity_id for entity_id in IdLog(0, gone).newest() if entity_id not in still_there]

    def newest(self, keep: int | None = None) -> list[str]:
        """The newest `keep` ids, all unless said otherwise, each once, newest last."""
        found: dict[str, None] = {}
        for chunk in reversed(self.chunks):
            found.update(dict.fromkeys(reversed(chunk.split(_SEPARATOR))))
        return list(found)[:keep][::-1]


class History(Struct, frozen=True, gc=False):
    """Entries in the order of their time, newest last. Equal (post, action, time) is there once.

    The first `skip` entries of the first chunk are not in it any more: they go with their chunk.
    """

    start: int = 0
    skip: int = 0
    chunks: tuple[tuple[HistoryEntry, ...], ...] = ()

    def entries(self) -> list[HistoryEntry]:
        return [entry for chunk in self.chunks for entry in chunk][self.skip :]

    def add(self, entry: HistoryEntry, keep: int) -> "History":
        """With the newest `keep` entries. Returns itself when the entry is there already, or is too old to be kept."""
        if not self.chunks:
            return History(self.start, 0, ((entry,),))
        last = self.chunks[-1][-1]
        if entry.at_us > last.at_us:
            return self._append(entry, keep)
        return self._insert(entry, keep)

    def without(self, post_id: str) -> "History":
        """Returns itself when the post is not in it, not even among what is skipped."""
        if all(entry.post_id != post_id for chunk in self.chunks for entry in chunk):
            return self
        return History(self.start, 0, _chunked([entry for entry in self.entries() if entry.post_id != post_id]))

    def _append(self, entry: HistoryEntry, keep: int) -> "History":
        tail = self.chunks[-1]
        if len(tail) < ENTRIES_IN_CHUNK:
            return self._trimmed((*self.chunks[:-1], (*tail, entry)), keep)
        return self._trimmed((*self.chunks, (entry,)), keep)

    def _insert(self, entry: HistoryEntry, keep: int) -> "History":
        """Actions on posts of several partitions come a little out of order, so the place is looked for from the end,
        and the chunks before it stay as they are."""
        order = _order(entry)
        index = len(self.chunks) - 1
        while index > 0 and order < _order(self.chunks[index][0]):
            index -= 1
        later = [other for chunk in self.chunks[index:] for other in chunk]
        place = bisect_left(later, order, key=_order)
        if len(later) - place >= keep or (place < len(later) and _order(later[place]) == order):
            return self
        later.insert(place, entry)
        return self._trimmed((*self.chunks[:index], *_chunked(later)), keep)

    def _trimmed(self, chunks: tuple[tuple[HistoryEntry, ...], ...], keep: int) -> "History":
        skip = max(self.skip, sum(map(len, chunks)) - keep)
        start = self.start
        while skip >= len(chunks[0]):
            skip -= len(chunks[0])
            start, chunks = start + 1, chunks[1:]
        return History(start, skip, chunks)


def _chunked(entries: list[HistoryEntry]) -> tuple[tuple[HistoryEntry, ...], ...]:
    pieces = range(0, len(entries), ENTRIES_IN_CHUNK)
    return tuple(tuple(entries[at : at + ENTRIES_IN_CHUNK]) for at in pieces)


def _order(entry: HistoryEntry) -> tuple[int, str, str]:
    return entry.at_us, entry.post_id, entry.action
