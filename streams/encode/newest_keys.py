"""For each key of a partition the newest of some records: those behind an offset that have been processed.

Read from the log, so that it is the same after a restart. Kept only while somebody asks.
"""

from typing import Final

from schemas.ids import Offset
from streams.kafka.lookup import RecordLookup
from streams.kafka.records import Place, offset_of

_STEP: Final = 20_000
"""Offsets that are read in one call, at most: a tenth of a second or two."""
_NONE: Final = Offset(-1)


class _Stretch:
    """The newest offset of each key in [first, next)."""

    def __init__(self, first: Offset) -> None:
        self.first = self.next = first
        self.newest: dict[bytes | None, Offset] = {}


class NewestKeys:
    """Used by one thread. Takes some hundred bytes for each key that has changed since the first request."""

    def __init__(self, lookup: RecordLookup) -> None:
        self._lookup = lookup
        self._stretches: dict[Place, _Stretch] = {}

    def reach(self, place: Place, since: Offset, until: Offset) -> bool:
        """Reads on, so that it knows the records in [since, until). False if there are more to read than one call may
        take; then call it again. Raises StreamsError."""
        stretch = self._stretches.get(place)
        if stretch is None or stretch.first > since:
            stretch = self._stretches[place] = _Stretch(since)
        end = min(until, Offset(stretch.next + _STEP))
        if stretch.next < end:
            for record in self._lookup.stretch(place, stretch.next, end):
                stretch.newest[record.key()] = offset_of(record)
            stretch.next = end
        return stretch.next >= until

    def newest(self, place: Place, key: bytes | None) -> Offset:
        """-1 if the key has no record there. Call `reach` before."""
        return self._stretches[place].newest.get(key, _NONE)

    def forget(self) -> None:
        self._stretches.clear()
