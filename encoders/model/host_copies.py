"""Copies of numbers from the host to the device, and how far the host may be ahead of it.

A GPU runs what is launched later, so the host packs the next batch meanwhile. Knows neither prompts nor models.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.int32]

_IN_FLIGHT: Final = 2
"""Batches: one runs while the next one is packed and launched. More would save nothing."""


class Moment(Protocol):
    """A moment in the work of a device."""

    def wait(self) -> None:
        """Returns when the device has reached it."""
        ...


class HostCopies(Protocol):
    """Called by one thread at a time."""

    def batch(self) -> AbstractContextManager[None]:
        """All that the device does for one batch is launched within it."""
        ...

    def copied(self, numbers: Numbers) -> Tensor:
        """On the device; they are there when the device needs them. Once in a batch."""
        ...


class PlainCopies:
    """Implements `HostCopies` on a CPU, where nothing is copied and nothing runs later. Any thread may call it."""

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()

    def copied(self, numbers: Numbers) -> Tensor:
        return torch.from_numpy(numbers)


class PinnedCopies:
    """Implements `HostCopies` with pinned buffers in turn. One is written again only when the batch that read it has
    ended, so the host is never more than two batches ahead."""

    def __init__(
        self, device: torch.device, new_moment: Callable[[torch.device], Moment], *, pinned: bool = True
    ) -> None:
        """`new_moment`: after all that is launched by now. `pinned`: False where there is no GPU."""
        self._device = device
        self._new_moment = new_moment
        self._pinned = pinned
        self._buffers = [torch.empty(0, dtype=torch.int32)] * _IN_FLIGHT
        self._ends: list[Moment | None] = [None] * _IN_FLIGHT
        self._turn = 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        self._turn = (self._turn + 1) % _IN_FLIGHT
        end = self._ends[self._turn]
        if end is not None:
            end.wait()
        try:
            yield
        finally:
            # Also where the batch failed: its copy may still be on the way.
            self._ends[self._turn] = self._new_moment(self._device)

    def copied(self, numbers: Numbers) -> Tensor:
        if len(self._buffers[self._turn]) < len(numbers):
            size = 1 << len(numbers).bit_length()
            self._buffers[self._turn] = torch.empty(size, dtype=torch.int32, pin_memory=self._pinned)
        buffer = self._buffers[self._turn][: len(numbers)]
        buffer.numpy()[:] = numbers
        return buffer.to(self._device, non_blocking=True)


class CudaMoment:
    """Implements `Moment`, and measures."""

    def __init__(self, device: torch.device) -> None:
        # A blocking event leaves the core to others while it waits.
        self._event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        self._event.synchronize()

    def seconds_to(self, later: "CudaMoment") -> float:
        """Of the device. Both must be over."""
        return float(self._event.elapsed_time(later._event)) / 1000


def host_copies(device: torch.device) -> HostCopies:
    return PinnedCopies(device, CudaMoment) if device.type == "cuda" else PlainCopies()


def copied_to_host(tensor: Tensor) -> Tensor:
    """Pinned where the tensor is on a GPU; then it holds the numbers once the device has done all that is launched."""
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
