"""A bounded log of ids, kept in chunks so that an append changes only the last chunk.

A log is a value: an append returns a new log that shares the unchanged chunks with the old one. Whoever stores logs
compares chunks by identity to see which ones changed.
"""

from typing import Final

from msgspec import Struct

IDS_IN_CHUNK: Final = 64
"""The last chunk is stored again with every append, so it is small; all others are stored once."""
_SEPARATOR: Final = "\0"
"""No id contains it."""


class IdLog(Struct, frozen=True, gc=False):
    """Ids, newest last. A chunk is its ids joined by NUL; `start` is the number of the first chunk that is left."""

    start: int = 0
    chunks: tuple[str, ...] = ()

    def append(self, entity_id: str, keep: int) -> "IdLog":
        """Keeps at least the newest `keep` ids and drops only whole chunks. Returns itself when the id is already in
        the last chunk."""
        if not self.chunks:
            return IdLog(self.start, (entity_id,)) if keep else self
        tail = self.chunks[-1]
        # The plain search is fast, and most ids are not in the chunk.
        if entity_id in tail and f"{_SEPARATOR}{entity_id}{_SEPARATOR}" in f"{_SEPARATOR}{tail}{_SEPARATOR}":
            return self
        if tail.count(_SEPARATOR) + 1 < IDS_IN_CHUNK:
            return IdLog(self.start, (*self.chunks[:-1], f"{tail}{_SEPARATOR}{entity_id}"))
        # All chunks but the new one are full.
        num_dropped = max(0, (len(self.chunks) * IDS_IN_CHUNK + 1 - keep) // IDS_IN_CHUNK)
        return IdLog(self.start + num_dropped, (*self.chunks[num_dropped:], entity_id))

    def dropped_until(self, later: "IdLog") -> list[str]:
        """The ids of this log that `later` no longer holds. `later` came from this log by appends."""
        dropped_chunks = self.chunks[: later.start - self.start]
        if not dropped_chunks:
            return []
        still_there = set(later.newest())
        return [entity_id for entity_id in IdLog(0, dropped_chunks).newest() if entity_id not in still_there]

    def newest(self, keep: int | None = None) -> list[str]:
        """The newest `keep` ids, or all for None. Each id is there once; the newest is last."""
        newest_first: dict[str, None] = {}
        for chunk in reversed(self.chunks):
            newest_first.update(dict.fromkeys(reversed(chunk.split(_SEPARATOR))))
        return list(newest_first)[:keep][::-1]
