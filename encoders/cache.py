"""Vectors of the texts and prompts encoded last: what was encoded once is not encoded again.

A vector depends on its key alone, so nothing here can be out of date: an edited post is another key.
"""

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from schemas.embeddings import Vector

CACHED_BYTES: Final = 64 * 1024 * 1024
"""Of one cache: some 90,000 vectors of 128 numbers."""
_ENTRY_BYTES: Final = 250
"""Key and bookkeeping."""

Key = str | bytes
"""A text, or the digest of a prompt."""


class VectorCache:
    """Any thread may read and write."""

    def __init__(self, dimension: int, max_bytes: int = CACHED_BYTES) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = max_bytes // (4 * dimension + _ENTRY_BYTES)
        self._vectors: OrderedDict[Key, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def find(self, keys: Iterable[Key]) -> dict[Key, Vector]:
        """Those of the keys that are kept."""
        found = {}
        with self._lock:
            for key in keys:
                if (vector := self._vectors.get(key)) is not None:
                    self._vectors.move_to_end(key)
                    found[key] = vector
                    self.hits += 1
                else:
                    self.misses += 1
        return found

    def keep(self, key: Key, vector: Vector) -> None:
        with self._lock:
            # A copy: a row would keep its whole batch alive.
            self._vectors[key] = vector.copy()
            self._vectors.move_to_end(key)
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)


def prompt_key(ids: Sequence[int]) -> bytes:
    """Two prompts have the same key only if they are the same."""
    return hashlib.blake2b(array("q", ids), digest_size=16).digest()
