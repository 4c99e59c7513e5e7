"""An exhaustive FAISS search (IndexFlatIP) for one query at a time, on both cores.

FAISS uses several threads only for several queries, so each core searches one half of the vectors.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import faiss
import numpy as np

from schemas.embeddings import Vector

_HALVES: Final = 2


class FlatSearch:
    def __init__(self, vectors: Vector) -> None:
        """`vectors`: (rows, numbers)."""
        self._halves = []
        for half in np.array_split(vectors, _HALVES):
            index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(np.ascontiguousarray(half))
            self._halves.append(index)
        # Whatever number of threads the environment asks for.
        faiss.omp_set_num_threads(1)
        self._pool = ThreadPoolExecutor(_HALVES, "half", initializer=faiss.omp_set_num_threads, initargs=(1,))

    def both_cores(self, query_D: Vector, k: int) -> list[int]:
        """The best k rows, best first."""
        return self._merged([*self._pool.map(lambda index: index.search(query_D.reshape(1, -1), k), self._halves)], k)

    def one_core(self, query_D: Vector, k: int) -> list[int]:
        """The same in one thread."""
        return self._merged([index.search(query_D.reshape(1, -1), k) for index in self._halves], k)

    def _merged(self, found: list[tuple[Vector, Vector]], k: int) -> list[int]:
        scores = np.concatenate([scores[0] for scores, _ in found])
        firsts = np.cumsum([0, *(index.ntotal for index in self._halves)])
        rows = np.concatenate(
            [np.where(rows[0] < 0, -1, rows[0] + first) for (_, rows), first in zip(found, firsts, strict=False)]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        merged: list[int] = rows[best].tolist()
        return merged
