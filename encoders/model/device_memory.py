"""The memory of the device: how it is said that there is none left, and whether others hold it.

A card is shared: by processes of several stages, by two generations, and by programs of others. Knows no model.
"""

from typing import Final, Protocol

import torch

from encoders.errors import DeviceFull, EncodingFailed

_CONTEXTS_BYTES: Final = 2 * 1024**3
"""What CUDA takes for processes that hold nothing: some 500 MB for each."""
_CUDA_OUT_OF_MEMORY: Final = 2
"""`cudaErrorMemoryAllocation`."""
_SENTENCES: Final = ("CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
"""Of plain RuntimeErrors, which nothing else tells apart: cuBLAS finds no workspace; main memory is full."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY:  # torch.AcceleratorError: outside torch's allocator
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _SENTENCES)


def device_failure(error: BaseException, device: torch.device) -> EncodingFailed:
    """The error to raise in the place of this one."""
    if is_out_of_memory(error):
        return DeviceFull(f"the memory of {device} is full now: {_first_line(error)}")
    return EncodingFailed(f"the model cannot run on {device}: {_first_line(error)}")


class DeviceMemory(Protocol):
    """Called by one thread at a time, when a text does not fit."""

    def release(self) -> None:
        """Gives back what this process keeps for later use."""
        ...

    def is_otherwise_empty(self) -> bool:
        """True if nobody else holds anything of what this process may use. Call `release` before."""
        ...


class CudaMemory:
    """Implements `DeviceMemory`. What this process holds does not count, such as weights: it does not go away."""

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", device.index or 0)  # torch asks for the number

    def release(self) -> None:
        torch.cuda.synchronize(self._device)
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()

    def is_otherwise_empty(self) -> bool:
        free, total = torch.cuda.mem_get_info(self._device)
        share = total * torch.cuda.get_per_process_memory_fraction(self._device)
        of_others = total - free - torch.cuda.memory_reserved(self._device)
        return of_others <= total - share + _CONTEXTS_BYTES


class HostMemory:
    """Implements `DeviceMemory`. The kernel decides who gets memory; a text that finds none twice will find none."""

    def release(self) -> None:
        pass

    def is_otherwise_empty(self) -> bool:
        return True


def device_memory(device: torch.device) -> DeviceMemory:
    return CudaMemory(device) if device.type == "cuda" else HostMemory()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
