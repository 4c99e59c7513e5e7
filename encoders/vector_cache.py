"""An LRU cache of vectors: a text or prompt that was encoded lately is not encoded again.

Owns the memory budget and the age at which vectors are dropped. Refuses to know what a key means: the same key must
always give the same vector, so an entry can never be out of date (an edited post has another key). The cache holds
digests of texts, never the texts, and drops a vector that nobody has asked for in a while.
"""

import hashlib
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from schemas.embeddings import Vector

CACHE_BYTES: Final = 64 * 1024 * 1024
"""The budget of one cache: enough for some 78,000 vectors of 128 numbers."""
_ENTRY_BYTES: Final = 250 + 100
"""What an entry takes besides the numbers of its vector: the array object, the key and the dictionary."""

Key = str | bytes
"""A text, or the digest of a prompt (see `prompt_key`)."""


class _Entry(NamedTuple):
    used_at_s: float
    vector: Vector


class VectorCache:
    """Any thread may read and write.

    This is not a `cachetools` cache. Its LRUCache cannot show the least recently used entry without making it the most
    recently used one, so `forget_unused` would need a scan of all entries. Its TTLCache takes 1.9 times the memory for
    an entry's bookkeeping and 5 times the time for a look-up (measured with cachetools 8.0.2).
    """

    def __init__(
        self, dimension: int, max_bytes: int = CACHE_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = max_bytes // (4 * dimension + _ENTRY_BYTES)
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        """By digest; the least recently used entry comes first."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, keys: Iterable[Key]) -> dict[Key, Vector]:
        """The cached vectors of these keys; keys that are not cached are left out."""
        vectors: dict[Key, Vector] = {}
        now_s = self._clock()
        with self._lock:
            for key in keys:
                digest = _digest(key)
                if (entry := self._entries.pop(digest, None)) is not None:
                    self._entries[digest] = _Entry(now_s, entry.vector)
                    vectors[key] = entry.vector
                    self.hits += 1
                else:
                    self.misses += 1
        return vectors

    def put(self, key: Key, vector: Vector) -> None:
        digest = _digest(key)
        with self._lock:
            self._entries.pop(digest, None)
            # A copy: `vector` is a row of a batch, and a reference to it would keep the whole batch in memory.
            self._entries[digest] = _Entry(self._clock(), vector.copy())
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)

    def forget_unused(self, age_s: float) -> None:
        """Drops every vector that nobody has asked for in the last `age_s` seconds."""
        with self._lock:
            oldest_s = self._clock() - age_s
            while self._entries and next(iter(self._entries.values())).used_at_s <= oldest_s:
                self._entries.popitem(last=False)


def _digest(key: Key) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest() if isinstance(key, str) else key


def prompt_key(ids: Sequence[int]) -> bytes:
    """A digest of the token ids: different prompts have different keys."""
    return hashlib.blake2b(array("q", ids), digest_size=16).digest()
