"""A member's history: its newest entries in the order of their time, shortened to a number of entries.

Kept in chunks so that an append changes only the last chunk. A history is a value: a change returns a new history that
shares the unchanged chunks with the old one. Whoever stores histories compares chunks by identity to see which ones
changed.
"""

from bisect import bisect_left
from typing import Final

from msgspec import Struct

from schemas.contexts import HistoryEntry

ENTRIES_IN_CHUNK: Final = 8
"""The last chunk is stored again with every append, so it is small; all others are stored once."""

_Chunk = tuple[HistoryEntry, ...]


class History(Struct, frozen=True, gc=False):
    """Entries ordered by time, newest last. An equal (post, action, time) is held once.

    `start` is the number of the first chunk that is left. The first `skip` entries of that chunk are dropped already;
    they stay in the chunk until the whole chunk goes, so that the chunk need not be stored again.
    """

    start: int = 0
    skip: int = 0
    chunks: tuple[_Chunk, ...] = ()

    def entries(self) -> list[HistoryEntry]:
        return [entry for chunk in self.chunks for entry in chunk][self.skip :]

    def add(self, entry: HistoryEntry, keep: int) -> "History":
        """Keeps the newest `keep` entries. Returns itself when the entry is there already or is too old to be kept."""
        if not self.chunks:
            return History(self.start, 0, ((entry,),))
        if entry.at_us > self.chunks[-1][-1].at_us:
            return self._append(entry, keep)
        return self._insert(entry, keep)

    def without(self, post_id: str) -> "History":
        """Takes the post out, also of the skipped entries. Returns itself when the post is in neither."""
        if all(entry.post_id != post_id for chunk in self.chunks for entry in chunk):
            return self
        return History(self.start, 0, _chunked([entry for entry in self.entries() if entry.post_id != post_id]))

    def _append(self, entry: HistoryEntry, keep: int) -> "History":
        tail = self.chunks[-1]
        if len(tail) < ENTRIES_IN_CHUNK:
            return self._trimmed((*self.chunks[:-1], (*tail, entry)), keep)
        return self._trimmed((*self.chunks, (entry,)), keep)

    def _insert(self, entry: HistoryEntry, keep: int) -> "History":
        """Actions on posts of several partitions arrive a little out of order. So the entry's chunk is searched from
        the end, and the chunks before it stay as they are."""
        order = _order(entry)
        index = len(self.chunks) - 1
        while index > 0 and order < _order(self.chunks[index][0]):
            index -= 1
        rest = [other for chunk in self.chunks[index:] for other in chunk]
        position = bisect_left(rest, order, key=_order)
        if len(rest) - position >= keep or (position < len(rest) and _order(rest[position]) == order):
            return self
        rest.insert(position, entry)
        return self._trimmed((*self.chunks[:index], *_chunked(rest)), keep)

    def _trimmed(self, chunks: tuple[_Chunk, ...], keep: int) -> "History":
        """Skips the oldest entries beyond `keep`, and drops the chunks of which nothing is left."""
        skip = max(self.skip, sum(map(len, chunks)) - keep)
        start = self.start
        while skip >= len(chunks[0]):
            skip -= len(chunks[0])
            start, chunks = start + 1, chunks[1:]
        return History(start, skip, chunks)


def _chunked(entries: list[HistoryEntry]) -> tuple[_Chunk, ...]:
    starts = range(0, len(entries), ENTRIES_IN_CHUNK)
    return tuple(tuple(entries[start : start + ENTRIES_IN_CHUNK]) for start in starts)


def _order(entry: HistoryEntry) -> tuple[int, str, str]:
    return entry.at_us, entry.post_id, entry.action
