"""What is due, by time: an index in memory, rebuilt from the due cells of the rows."""

import heapq
from collections.abc import Iterable
from itertools import islice

from contexts.cells import Due
from schemas.ids import Micros


class DueIndex:
    """Of one table partition. One thread."""

    def __init__(self, entries: Iterable[tuple[str, Due | None]] = ()) -> None:
        self._due = {entity_id: due for entity_id, due in entries if due is not None}
        self._heap = [(due.at_us, entity_id) for entity_id, due in self._due.items()]
        heapq.heapify(self._heap)

    def set(self, entity_id: str, due: Due | None) -> None:
        known = self._due.get(entity_id)
        if due is None:
            self._due.pop(entity_id, None)
        else:
            self._due[entity_id] = due
        if due is not None and (known is None or known.at_us != due.at_us):
            heapq.heappush(self._heap, (due.at_us, entity_id))

    def due(self, now_us: Micros, limit: int) -> list[str]:
        """At most so many entities whose time has come, earliest first. They stay due until `set` says otherwise."""
        found: dict[str, Micros] = {}
        while self._heap and self._heap[0][0] <= now_us and len(found) < limit:
            at_us, entity_id = heapq.heappop(self._heap)
            due = self._due.get(entity_id)
            # What was put off, or is done with, has left its old entry in the heap.
            if due is not None and due.at_us == at_us:
                found[entity_id] = at_us
        for entity_id, at_us in found.items():
            heapq.heappush(self._heap, (at_us, entity_id))
        return list(found)

    def publications(self, limit: int) -> list[str]:
        """At most so many entities with a publication that waits, whenever it is due."""
        return list(islice((entity_id for entity_id, due in self._due.items() if due.publishes), limit))
