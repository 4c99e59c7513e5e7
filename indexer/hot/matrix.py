"""The hot tier's vectors: a matrix with one row for each slot, which is changed and searched in place. Knows no posts.

Two implementations: `FaissMatrix` searches with FAISS on the CPU, `TorchMatrix` with torch on a GPU. Each imports its
library when it is made. A row may be changed during a search if the search's mask leaves the row out; the hot tier
makes sure of that.

Shapes: S slots, D dimensions, K hits.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from indexer.best import best_k
from indexer.hot.slot_table import Mask, Slots
from indexer.tiers import Scores
from schemas.embeddings import Vector

_GPU_MORE: Final = 128
"""Asked for beyond k, because half precision orders close neighbours wrongly; the hits are scored again in full."""


class Scanned(NamedTuple):
    """Best first."""

    slots: Slots
    scores: Scores


class Matrix(Protocol):
    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        """One thread alone."""
        ...

    def get(self, slots: Slots) -> Vector: ...

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> Scanned:
        """The k best of the slots that the mask lets through. Any thread; the mask may be shorter than the matrix."""
        ...


class FaissMatrix:
    """Slot s is row s // threads of stripe s % threads: stripes fill evenly and are scanned side by side, since FAISS
    gives one query one thread. A selector costs the scan nothing."""

    def __init__(self, num_slots: int, dimension: int, threads: int) -> None:
        import faiss

        self._faiss: Any = faiss
        self._dimension = dimension
        self._threads = threads
        self._stripes = [self._stripe(-(-num_slots // threads)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, "hot-scan") if threads > 1 else None

    def _stripe(self, rows: int) -> tuple[Any, Vector]:
        index = self._faiss.IndexFlatIP(self._dimension)
        index.codes.resize(rows * self._dimension * 4)
        rows_RD = self._faiss.rev_swig_ptr(index.get_xb(), rows * self._dimension).reshape(rows, self._dimension)
        index.ntotal = rows
        return index, rows_RD

    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        for place, (_, rows_RD) in enumerate(self._stripes):
            mine = slots % self._threads == place
            rows_RD[slots[mine] // self._threads] = vectors_KD[mine]

    def get(self, slots: Slots) -> Vector:
        found = np.empty((len(slots), self._dimension), np.float32)
        for place, (_, rows_RD) in enumerate(self._stripes):
            mine = slots % self._threads == place
            found[mine] = rows_RD[slots[mine] // self._threads]
        return found

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> Scanned:
        if self._pool is None:
            return self._scan(0, query_D, k, mask_S)
        places = range(self._threads)
        parts = list(self._pool.map(lambda place: self._scan(place, query_D, k, mask_S), places))
        slots = np.concatenate([part.slots for part in parts])
        scores = np.concatenate([part.scores for part in parts])
        best = best_k(scores, k)
        return Scanned(slots[best], scores[best])

    def _scan(self, place: int, query_D: Vector, k: int, mask_S: Mask) -> Scanned:
        bits = np.packbits(mask_S[place :: self._threads], bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        self._faiss.omp_set_num_threads(1)
        scores, rows = self._stripes[place][0].search(
            query_D.reshape(1, -1), k, params=self._faiss.SearchParameters(sel=selector)
        )
        found = rows[0] >= 0
        return Scanned(rows[0][found] * self._threads + place, scores[0][found])


class TorchMatrix:
    """Half precision on the device for the scan, full precision beside it for the scores that are given."""

    def __init__(self, num_slots: int, dimension: int, device: str) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._full_SD = np.zeros((num_slots, dimension), np.float32)
        self._half_SD = torch.zeros((num_slots, dimension), dtype=torch.float16, device=device)

    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        torch = self._torch
        self._full_SD[slots] = vectors_KD
        rows = torch.from_numpy(np.array(vectors_KD)).to(self._device, torch.float16)
        self._half_SD.index_copy_(0, torch.from_numpy(slots).to(self._device), rows)

    def get(self, slots: Slots) -> Vector:
        return self._full_SD[slots]

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> Scanned:
        torch = self._torch
        size = len(mask_S)
        query = torch.from_numpy(np.array(query_D)).to(self._device, torch.float16)
        scores_S = self._half_SD[:size] @ query
        scores_S.masked_fill_(~torch.from_numpy(mask_S).to(self._device), -torch.inf)
        slots = torch.topk(scores_S, min(k + _GPU_MORE, size)).indices.cpu().numpy()
        slots = slots[mask_S[slots]]
        scores = self._full_SD[slots] @ query_D
        best = best_k(scores, k)
        return Scanned(slots[best], scores[best])


def new_matrix(num_slots: int, dimension: int, device: str, threads: int) -> Matrix:
    """`device` as in HotSettings."""
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    if device == "cpu":
        return FaissMatrix(num_slots, dimension, threads)
    return TorchMatrix(num_slots, dimension, device)


def _has_gpu() -> bool:
    """Asks the driver before it imports torch, which is slow to load."""
    from ctypes import CDLL

    try:
        CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()
