"""Which matrix the hot tier has on which device. Imports torch only where it is used."""

from indexer.devices import has_gpu
from indexer.hot.matrix.matrix import Matrix


def new_matrix(dimension: int, capacity: int, device: str, threads: int) -> Matrix:
    """`device`: a value of the setting `hot.device`."""
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device == "cpu":
        from indexer.hot.matrix.flat_matrix import FlatMatrix

        return FlatMatrix(dimension, threads)
    from indexer.hot.matrix.torch_matrix import TorchMatrix

    return TorchMatrix(dimension, capacity, device)
