"""What torch raises for a device: in our words, and whether there was no memory. Imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from indexer.errors import TierUnavailable

_CUDA_OUT_OF_MEMORY: Final = 2
"""`cudaErrorMemoryAllocation`."""
_CUBLAS_OUT_OF_MEMORY: Final = "CUBLAS_STATUS_ALLOC_FAILED"
"""Of a plain RuntimeError, which nothing else tells apart: cuBLAS finds no workspace."""


def is_out_of_memory(error: BaseException | None) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if getattr(error, "error_code", None) == _CUDA_OUT_OF_MEMORY:  # torch.AcceleratorError: outside torch's allocator
        return True
    return isinstance(error, RuntimeError) and _CUBLAS_OUT_OF_MEMORY in str(error)


@contextmanager
def translated_errors() -> Iterator[None]:
    """torch raises RuntimeError, or a class below it, for everything that a device does not do."""
    try:
        yield
    except RuntimeError as error:
        raise TierUnavailable(f"the hot tier's device failed: {str(error).partition(chr(10))[0]}") from error
