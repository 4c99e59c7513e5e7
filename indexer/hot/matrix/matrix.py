"""What a search of the hot tier looks at: for each slot a vector, whether it is live, and the fields that filters
compare. Knows no posts: authors and languages are numbers.

Two implementations: `FlatMatrix` (`flat_matrix.py`) scans with numpy on the CPU, `TorchMatrix` (`torch_matrix.py`)
with torch on a GPU.

Shapes: S slots, D dimensions, K slots of one call, R rows of a tile, B queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from indexer.hot.slots import Slots
from indexer.tiers import Numbers, Scores
from schemas.embeddings import Vector
from schemas.ids import Micros


class Fields(NamedTuple):
    """By row of a call's slots."""

    created_at_us: npt.NDArray[np.int64]
    author: Numbers
    language: npt.NDArray[np.int32]

    def at(self, rows: Any) -> "Fields":
        """`rows`: anything that an array takes as an index."""
        return Fields(self.created_at_us[rows], self.author[rows], self.language[rows])


@dataclass(frozen=True, eq=False, slots=True)
class ScanFilter:
    """Compared by identity: queries of one batch with the same filter share the object, and it is looked at once."""

    languages: npt.NDArray[np.int32] | None
    """None: any."""
    created_after_us: Micros | None
    created_before_us: Micros | None
    exclude_authors: Numbers
    only_authors: Numbers | None
    only_slots: Slots | None
    """Sorted, each slot once."""


class ScanQuery(NamedTuple):
    vector_D: Vector
    k: int
    filter: ScanFilter
    excluded: Slots
    """Sorted, each slot once."""
    excluded_authors: Numbers
    """Few. Nearly every member leaves out the own posts; a mask for each of them would take longer than the scan."""


class ScannedSlots(NamedTuple):
    """Best first. Equal scores come in any order."""

    slots: Slots
    scores: Scores


class View(Protocol):
    """The slots as they were at one moment."""

    def scan(self, queries: Sequence[ScanQuery]) -> list[ScannedSlots]:
        """For each query the k best live slots that pass. Raises TierUnavailable if the device failed."""
        ...


class Matrix(Protocol):
    """One thread writes: it calls `reserve`, `put`, `clear`, `flipping` and `repair`. A slot that is given to `put` or
    `clear` is not looked at by any view. Methods marked "locked" are called within the tier's lock, and are quick."""

    def reserve(self, num_slots: int) -> None:
        """Makes room for slots below this number."""
        ...

    def put(self, slots: Slots, vectors_KD: Vector, fields: Fields) -> None: ...

    def clear(self, slots: Slots) -> None:
        """Overwrites the vectors with zeros, because the vector of a deleted post must not stay."""
        ...

    def vectors(self, slots: Slots) -> Vector: ...

    def fields(self, slots: Slots) -> Fields: ...

    def flipping(self, live: Slots, dead: Slots) -> Callable[[], None]:
        """Returns what makes the slots in `live` live, then those in `dead` dead: call it once, locked. All that may
        wait for a device happens before it is returned."""
        ...

    def view(self, num_slots: int) -> View:
        """Locked. Of the slots below this number."""
        ...

    def repair(self) -> None:
        """Tries to get a device that failed to work again. Does nothing if it works."""
        ...
