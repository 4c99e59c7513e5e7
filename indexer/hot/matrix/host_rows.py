"""What a search looks at, in main memory: the vectors, which slots are live, and the fields that filters compare."""

from collections.abc import Callable

import numpy as np

from indexer.hot.matrix.arrays import grown
from indexer.hot.matrix.blocks import Blocks
from indexer.hot.matrix.matrix import Fields
from indexer.hot.matrix.top_k import Mask
from indexer.hot.slots import Slots
from schemas.embeddings import Vector


class HostRows:
    """The part of `Matrix` that is the same on every device."""

    def __init__(self, dimension: int) -> None:
        self.blocks = Blocks(dimension)
        self.live: Mask = np.zeros(0, np.bool_)
        self.columns = Fields(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))

    def reserve(self, num_slots: int) -> None:
        self.blocks.reserve(num_slots)
        self.live = grown(self.live, num_slots)
        created_at_us, author, language = self.columns
        self.columns = Fields(grown(created_at_us, num_slots), grown(author, num_slots), grown(language, num_slots))

    def put(self, slots: Slots, vectors_KD: Vector, fields: Fields) -> None:
        self.columns.created_at_us[slots] = fields.created_at_us
        self.columns.author[slots] = fields.author
        self.columns.language[slots] = fields.language
        self.blocks.put(slots, vectors_KD)

    def clear(self, slots: Slots) -> None:
        self.blocks.clear(slots)

    def vectors(self, slots: Slots) -> Vector:
        return self.blocks.gather(slots)

    def fields(self, slots: Slots) -> Fields:
        return self.columns.at(slots)

    def flipping(self, live: Slots, dead: Slots) -> Callable[[], None]:
        def flip() -> None:
            self.live[live] = True
            self.live[dead] = False

        return flip
