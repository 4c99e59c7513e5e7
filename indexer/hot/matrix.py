"""The hot tier's vectors: a matrix with one row for each slot, which is changed and searched in place. Knows no posts.

Two implementations: `FaissMatrix` searches with FAISS on the CPU, `TorchMatrix` with torch on a GPU. Each imports its
library when it is made. A row may be changed during a search if the search's mask leaves the row out; the hot tier
makes sure of that.

Shapes: S slots, D dimensions, K slots of one call, R rows of one stripe.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from indexer.best import best_k
from indexer.hot.slot_table import Mask, Slots
from indexer.tiers import Scores
from schemas.embeddings import Vector

_EXTRA_HITS: Final = 128
"""The scan in half precision returns this many more hits than k, because it orders close neighbours wrongly. All these
hits are scored again in full precision."""


class ScannedSlots(NamedTuple):
    """Best first."""

    slots: Slots
    scores: Scores


class Matrix(Protocol):
    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        """Only one thread may call this."""
        ...

    def get(self, slots: Slots) -> Vector: ...

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        """The k best of the slots that the mask lets through. Any thread may call this. If the mask is shorter than the
        matrix, the further rows are left out."""
        ...


class FaissMatrix:
    """The rows are in stripes, one for each thread, which are scanned at the same time: FAISS itself uses one thread
    for one query. Slot s is row s // threads of stripe s % threads, so that the stripes fill evenly. A selector does
    not slow the scan down."""

    def __init__(self, num_slots: int, dimension: int, threads: int) -> None:
        import faiss

        self._faiss: Any = faiss
        self._dimension = dimension
        self._threads = threads
        self._stripes = [self._new_stripe(-(-num_slots // threads)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, "hot-scan") if threads > 1 else None

    def _new_stripe(self, rows: int) -> tuple[Any, Vector]:
        """An index that has all its rows from the start, and an array that shares the memory of these rows."""
        index = self._faiss.IndexFlatIP(self._dimension)
        index.codes.resize(rows * self._dimension * 4)
        rows_RD = self._faiss.rev_swig_ptr(index.get_xb(), rows * self._dimension).reshape(rows, self._dimension)
        index.ntotal = rows
        return index, rows_RD

    def put(self, slots: Slots, vectors_KD: Vector) -> None:
        for stripe, (_, rows_RD) in enumerate(self._stripes):
            in_stripe = slots % self._threads == stripe
            rows_RD[slots[in_stripe] // self._threads] = vectors_KD[in_stripe]

    def get(self, slots: Slots) -> Vector:
        vectors_KD = np.empty((len(slots), self._dimension), np.float32)
        for stripe, (_, rows_RD) in enumerate(self._stripes):
            in_stripe = slots % self._threads == stripe
            vectors_KD[in_stripe] = rows_RD[slots[in_stripe] // self._threads]
        return vectors_KD

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        if self._pool is None:
            return self._scan_stripe(0, query_D, k, mask_S)
        stripes = range(self._threads)
        parts = list(self._pool.map(lambda stripe: self._scan_stripe(stripe, query_D, k, mask_S), stripes))
        slots = np.concatenate([part.slots for part in parts])
        scores = np.concatenate([part.scores for part in parts])
        return _best(slots, scores, k)

    def _scan_stripe(self, stripe: int, query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        bits = np.packbits(mask_S[stripe :: self._threads], bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        self._faiss.omp_set_num_threads(1)
        scores, rows = self._stripes[stripe][0].search(
            query_D.reshape(1, -1), k, params=self._faiss.SearchParameters(sel=selector)
        )
        # If fewer than k rows pass, FAISS returns row -1 for each missing hit.
        is_hit = rows[0] >= 0
        return ScannedSlots(rows[0][is_hit] * self._threads + stripe, scores[0][is_hit])


class TorchMatrix:
    """Scans in half precision on the device. The scores of the hits come from vectors in full precision, which stay in
    main memory."""

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

    def scan(self, query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        torch = self._torch
        size = len(mask_S)
        query = torch.from_numpy(np.array(query_D)).to(self._device, torch.float16)
        scores_S = self._half_SD[:size] @ query
        scores_S.masked_fill_(~torch.from_numpy(mask_S).to(self._device), -torch.inf)
        slots = torch.topk(scores_S, min(k + _EXTRA_HITS, size)).indices.cpu().numpy()
        slots = slots[mask_S[slots]]
        return _best(slots, self._full_SD[slots] @ query_D, k)


def _best(slots: Slots, scores: Scores, k: int) -> ScannedSlots:
    rows = best_k(scores, k)
    return ScannedSlots(slots[rows], scores[rows])


def new_matrix(num_slots: int, dimension: int, device: str, threads: int) -> Matrix:
    """`device`: a value of the setting `hot.device`."""
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    if device == "cpu":
        return FaissMatrix(num_slots, dimension, threads)
    return TorchMatrix(num_slots, dimension, device)


def _has_gpu() -> bool:
    """Looks for the driver before it imports torch, which is slow to load."""
    from ctypes import CDLL

    try:
        CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()
