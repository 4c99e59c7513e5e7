"""Vectors of the texts and prompts encoded last: what was encoded once is not encoded again.

A vector depends on its key alone, so nothing here can be out of date: an edited post is another key. No text is kept,
only its digest; and the vector of a text that is gone is forgotten once nobody has asked for it for a while.
"""

import hashlib
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from schemas.embeddings import Vector

CACHED_BYTES: Final = 64 * 1024 * 1024
"""Of one cache: some 90,000 vectors of 128 numbers."""
_ENTRY_BYTES: Final = 250 + 100
"""Key and bookkeeping."""

Key = str | bytes
"""A text, or the digest of a prompt."""


class VectorCache:
    """Any thread may read and write."""

    def __init__(
        self, dimension: int, max_bytes: int = CACHED_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = max_bytes // (4 * dimension + _ENTRY_BYTES)
        self._clock = clock
        # The one used last is the last, with the time of that.
        self._vectors: OrderedDict[bytes, tuple[float, Vector]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def find(self, keys: Iterable[Key]) -> dict[Key, Vector]:
        """Those of the keys that are kept."""
        found = {}
        now = self._clock()
        with self._lock:
            for key in keys:
                name = _name(key)
                if (kept := self._vectors.pop(name, None)) is not None:
                    self._vectors[name] = (now, kept[1])
                    found[key] = kept[1]
                    self.hits += 1
                else:
                    self.misses += 1
        return found

    def keep(self, key: Key, vector: Vector) -> None:
        name = _name(key)
        with self._lock:
            self._vectors.pop(name, None)
            # A copy: a row would keep its whole batch alive.
            self._vectors[name] = (self._clock(), vector.copy())
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)

    def forget_unused(self, age_s: float) -> None:
        """What nobody has asked for in this time."""
        with self._lock:
            while self._vectors and next(iter(self._vectors.values()))[0] <= self._clock() - age_s:
                self._vectors.popitem(last=False)


def _name(key: Key) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest() if isinstance(key, str) else key


def prompt_key(ids: Sequence[int]) -> bytes:
    """Two prompts have the same key only if they are the same."""
    return hashlib.blake2b(array("q", ids), digest_size=16).digest()
