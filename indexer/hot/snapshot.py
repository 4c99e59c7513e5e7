"""Saves the contents of the hot tier while it goes on, and brings them back after a restart."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Final

import numpy as np

from indexer.errors import SnapshotRefused
from indexer.hot import snapshot_file
from indexer.hot.change_order import ChangeOrder, Places
from indexer.hot.contents import Contents, Moment
from indexer.hot.slots import Slots
from indexer.hot.snapshot_file import Chunk, Header, Reading
from indexer.tiers import SnapshotMoment

_CHUNK: Final = 2048
"""Posts that are written or read at once: about a millisecond in which no other thread runs."""


def save(
    folder: Path,
    moment: SnapshotMoment,
    dimension: int,
    contents: Contents,
    places: Places,
    *,
    timeout_s: float | None,
) -> Future[None]:
    """Takes what is held now, and writes it in a thread of its own. As long as it is written it counts as a reader, so
    the slots keep what they hold. Raises TierLate if it cannot begin within this time."""
    done: Future[None] = Future()
    reading = ExitStack()
    seen, slots = reading.enter_context(contents.holding(timeout_s))
    header = Header(dimension, len(slots), dict(seen.floor), dict(moment.next_offsets), moment.taken_at_us)

    def write() -> None:
        with reading:
            try:
                snapshot_file.write(folder, header, _chunks(contents, seen, slots, places))
            except BaseException as error:
                done.set_exception(error)
                return
        done.set_result(None)

    Thread(target=write, name="hot-snapshot", daemon=True).start()
    return done


def _chunks(contents: Contents, seen: Moment, slots: Slots, places: Places) -> Iterator[Chunk]:
    for first in range(0, len(slots), _CHUNK):
        part = slots[first : first + _CHUNK]
        own_places = Places(places.partition[part], places.offset[part], places.at_us[part])
        yield Chunk(contents.batch(seen.columns, part), own_places)


def load(folder: Path, dimension: int, capacity: int, contents: Contents, order: ChangeOrder) -> SnapshotMoment | None:
    """Into contents and an order that are empty. None if there is no snapshot. Raises SnapshotRefused; then they are of
    no use any more, and what they hold has to be released."""
    file = snapshot_file.open_snapshot(folder)
    if file is None:
        return None
    with file:
        reading = Reading(file)
        header = reading.header
        if header.dimension != dimension:
            raise SnapshotRefused(
                f"a snapshot of vectors of {header.dimension}; this tier holds vectors of {dimension}"
            )
        if header.num_posts > capacity:
            raise SnapshotRefused(f"a snapshot of {header.num_posts} posts; this tier holds at most {capacity}")
        slots, places = _fill(contents, reading)
    order.fill(slots, places, header.floor)
    contents.show([], [], [], header.floor)
    return header.moment


def _fill(contents: Contents, reading: Reading) -> tuple[Slots, Places]:
    """The slots of all posts, and their places."""
    slots: list[Slots] = [np.empty(0, np.int64)]
    places: list[Places] = []
    for chunk in reading.chunks():
        written = contents.write(chunk.batch)
        contents.show(written.tolist(), [], [], {})
        slots.append(written)
        places.append(chunk.places)
    partitions = [np.empty(0, np.int16), *(part.partition for part in places)]
    offsets = [np.empty(0, np.int64), *(part.offset for part in places)]
    times = [np.empty(0, np.int64), *(part.at_us for part in places)]
    return np.concatenate(slots), Places(np.concatenate(partitions), np.concatenate(offsets), np.concatenate(times))
