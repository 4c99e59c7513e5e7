"""What a search looks at, on a device. All errors of torch come out as they are.

Shapes: S slots, D dimensions, K slots of one call.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from indexer.hot.matrix.device_scan import GROUP, Block, DeviceView
from indexer.hot.matrix.matrix import Fields
from indexer.hot.slots import Slots, with_spare
from schemas.embeddings import Vector

_BLOCKS: Final = 8
"""A full tier has about so many blocks. A search costs some thirty calls for each of them."""
_MIN_BLOCK: Final = 1 << 16


class DeviceRows:
    """One thread writes. Everything runs in a stream of its own, in the order of the calls."""

    def __init__(self, dimension: int, capacity: int, device: str) -> None:
        self._dimension = dimension
        self._device = device
        self._block_rows = max(_MIN_BLOCK, 1 << (with_spare(capacity) // _BLOCKS).bit_length())
        is_gpu = device.startswith("cuda")
        self._stream = torch.cuda.Stream(device) if is_gpu else None  # type: ignore[no-untyped-call]
        self._blocks: list[Block] = []
        with self.in_stream():
            self._live = self._zeros(torch.bool)
            self._fields = [self._zeros(torch.int64), self._zeros(torch.int32), self._zeros(torch.int32)]
            """As in `Fields`."""

    def in_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def moved(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device)

    def reserve(self, num_slots: int) -> None:
        with self.in_stream():
            while num_slots > len(self._blocks) * self._block_rows:
                self._blocks.append(Block(self._block_rows, self._dimension, self._device))
                self._live = torch.cat([self._live, self._zeros(torch.bool, self._block_rows)])
                self._fields = [torch.cat([f, self._zeros(f.dtype, self._block_rows)]) for f in self._fields]

    def put(self, slots: Slots, vectors_KD: Vector, fields: Fields) -> None:
        with self.in_stream():
            on_device = self.moved(slots)
            created_at_us, author, language = self._fields
            created_at_us.index_copy_(0, on_device, self.moved(fields.created_at_us))
            author.index_copy_(0, on_device, self.moved(fields.author))
            language.index_copy_(0, on_device, self.moved(fields.language))
            for block, rows, own in self._by_block(slots):
                block.put(rows, self.moved(vectors_KD[own]))

    def clear(self, slots: Slots) -> None:
        with self.in_stream():
            for block, rows, _ in self._by_block(slots):
                block.high_RD.index_fill_(0, rows, 0)
                block.low_RD.index_fill_(0, rows, 0)

    def flipping(self, live: Slots, dead: Slots) -> Callable[[], None]:
        """A copy from main memory waits for all that the stream still does; a fill of what is there does not."""
        with self.in_stream():
            return partial(self.flip, self.moved(live), self.moved(dead))

    def flip(self, live: torch.Tensor, dead: torch.Tensor) -> None:
        with self.in_stream():
            self._live.index_fill_(0, live, True)
            self._live.index_fill_(0, dead, False)

    def view(self, num_slots: int) -> DeviceView:
        with self.in_stream():
            size = min(-(-num_slots // GROUP) * GROUP, len(self._live))
            fields = Fields(*(column[:size] for column in self._fields))  # type: ignore[arg-type]
            return DeviceView(self.in_stream, self.moved, list(self._blocks), self._live[:size].clone(), fields)

    def _zeros(self, dtype: torch.dtype, size: int = 0) -> torch.Tensor:
        return torch.zeros(size, dtype=dtype, device=self._device)

    def _by_block(self, slots: Slots) -> Iterator[tuple[Block, torch.Tensor, Slots]]:
        """Each block that has some of the slots, its rows of them, and where in `slots` they stand."""
        numbers = slots // self._block_rows
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            yield self._blocks[number], self.moved(slots[own] % self._block_rows), own
