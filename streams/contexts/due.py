"""Which rows of a table partition are due: an index in memory, rebuilt from the due cells at a start."""

import heapq
from collections.abc import Callable, Iterable
from itertools import islice

from contexts.cells import Due
from schemas.ids import Micros


class DueIndex:
    """For one thread."""

    def __init__(self, due_us: Callable[[Due], Micros], entries: Iterable[tuple[str, Due | None]] = ()) -> None:
        """`due_us` gives the time at which a row with this `Due` must be looked at."""
        self._due_us = due_us
        self._due = {entity_id: due for entity_id, due in entries if due is not None}
        self.num_delayed_publications = sum(due.publishes for due in self._due.values())
        # The heap also holds outdated entries: an entity that was given another time, or none, leaves its old one.
        self._heap = [(due_us(due), entity_id) for entity_id, due in self._due.items()]
        heapq.heapify(self._heap)

    def get(self, entity_id: str) -> Due | None:
        return self._due.get(entity_id)

    def set(self, entity_id: str, due: Due | None) -> None:
        previous = self._due.get(entity_id)
        self.num_delayed_publications += _publishes(due) - _publishes(previous)
        if due is None:
            self._due.pop(entity_id, None)
            return
        self._due[entity_id] = due
        if due != previous:
            heapq.heappush(self._heap, (self._due_us(due), entity_id))

    def due(self, now_us: Micros, limit: int) -> list[str]:
        """At most `limit` entities whose time has come, earliest first. They stay due until `set` changes that."""
        due_at: dict[str, Micros] = {}
        while self._heap and self._heap[0][0] <= now_us and len(due_at) < limit:
            at_us, entity_id = heapq.heappop(self._heap)
            due = self._due.get(entity_id)
            if due is not None and self._due_us(due) == at_us:
                due_at[entity_id] = at_us
        for entity_id, at_us in due_at.items():
            heapq.heappush(self._heap, (at_us, entity_id))
        return list(due_at)

    def delayed_publications(self, limit: int) -> list[str]:
        """At most `limit` entities with a delayed publication, whenever it is due."""
        return list(islice((entity_id for entity_id, due in self._due.items() if due.publishes), limit))


def _publishes(due: Due | None) -> bool:
    return due is not None and due.publishes
