"""On a GPU: whether the same steps give the same bytes, as a training that was killed and resumed must.

Most of torch's operations do so anyway. The gradients of flash attention do where torch is told that all must; then
torch refuses an operation that cannot, and cuBLAS needs a workspace of a fixed size.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic


@contextmanager
def reproducible(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Does nothing on a CPU, whose operations always do, or where it is not wanted."""
    if device.type != "cuda" or not wanted:
        yield
        return
    # Read by cuBLAS when it first multiplies in this process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # a property of the module
    torch.use_deterministic_algorithms(True)
    # Nobody reads memory that was not written; to fill it would cost time.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
