"""What is due, by time: an index in memory, rebuilt from the due cells of the rows."""

import heapq
from collections.abc import Callable, Iterable
from itertools import islice

from contexts.cells import Due
from schemas.ids import Micros


class DueIndex:
    """Of one table partition. One thread."""

    def __init__(self, due_us: Callable[[Due], Micros], entries: Iterable[tuple[str, Due | None]] = ()) -> None:
        """`due_us` says when a row that waits for this must be looked at."""
        self._due_us = due_us
        self._due = {entity_id: due for entity_id, due in entries if due is not None}
        self._heap = [(due_us(due), entity_id) for entity_id, due in self._due.items()]
        heapq.heapify(self._heap)

    def of(self, entity_id: str) -> Due | None:
        return self._due.get(entity_id)

    def set(self, entity_id: str, due: Due | None) -> None:
        known = self._due.get(entity_id)
        if due is None:
            self._due.pop(entity_id, None)
        else:
            self._due[entity_id] = due
        if due is not None and due != known:
            heapq.heappush(self._heap, (self._due_us(due), entity_id))

    def due(self, now_us: Micros, limit: int) -> list[str]:
        """At most so many entities whose time has come, earliest first. They stay due until `set` says otherwise."""
        found: dict[str, Micros] = {}
        while self._heap and self._heap[0][0] <= now_us and len(found) < limit:
            at_us, entity_id = heapq.heappop(self._heap)
            due = self._due.get(entity_id)
            # What was put off, or is done with, has left its old entry in the heap.
            if due is not None and self._due_us(due) == at_us:
                found[entity_id] = at_us
        for entity_id, at_us in found.items():
            heapq.heappush(self._heap, (at_us, entity_id))
        return list(found)

    def publications(self, limit: int) -> list[str]:
        """At most so many entities with a publication that waits, whenever it is due."""
        return list(islice((entity_id for entity_id, due in self._due.items() if due.publishes), limit))
