"""A cold tier behind a breaker: while it fails or is silent, callers are told so at once instead of waiting.

Owns the probe's thread. When a tier is left alone is decided in `breaker.py`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Final, TypeVar

from indexer.cold.breaker import Breaker
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.tiers import NO_FILTERS, ColdHits, ColdQuery, ColdReader, Filters, Offsets, StoredMember, StoredPost
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, PostId

T = TypeVar("T")

_PROBE_S: Final = 5.0
"""So long a probe waits, while its caller has given up long since. A tier that takes longer is of no use."""
_RESTS: Final = "the cold tier has failed or was silent several times in a row; it is asked again soon"


class GuardedColdReader:
    """Implements `ColdReader` for callers with short deadlines. Raises TierUnavailable at once while the tier is left
    alone. `position` does that too, but how it ends does not count: a Qdrant server is not asked for it. `scroll_posts`
    is not guarded: no question waits for it."""

    def __init__(self, tier: ColdReader, breaker: Breaker | None = None, probe_s: float = _PROBE_S) -> None:
        self._tier = tier
        self._breaker = breaker or Breaker()
        self._probe_s = probe_s

    def refuses(self) -> bool:
        """Whether a call would be refused now. For callers who would have to wait before they can make it."""
        return self._breaker.refuses()

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        return self._ask(lambda left_s: self._tier.search(query_D, k, filters, timeout_s=left_s), timeout_s)

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        return self._ask(lambda left_s: self._tier.search_batch(queries, timeout_s=left_s), timeout_s)

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        if self.refuses():
            raise TierUnavailable(_RESTS)
        return self._tier.position(timeout_s=timeout_s)

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        return self._ask(lambda left_s: self._tier.posts(ids, with_vectors=with_vectors, timeout_s=left_s), timeout_s)

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        return self._ask(lambda left_s: self._tier.members(ids, timeout_s=left_s), timeout_s)

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        return self._tier.scroll_posts(timeout_s=timeout_s)

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        return self._ask(lambda left_s: self._tier.count(kind, timeout_s=left_s), timeout_s)

    def close(self) -> None:
        self._tier.close()

    def _ask(self, call: Callable[[float | None], T], timeout_s: float | None) -> T:
        decision = self._breaker.begin()
        if decision == "refuse":
            raise TierUnavailable(_RESTS)
        if decision == "ask":
            return self._watched(call, timeout_s)
        answer: Future[T] = Future()
        probe = Thread(target=self._probe, args=(call, answer), name="cold-probe", daemon=True)
        try:
            probe.start()
        except RuntimeError as error:  # the machine has no thread left
            self._breaker.failed()
            raise TierUnavailable("the cold tier cannot be asked: no thread can be started") from error
        try:
            return answer.result(timeout_s)
        except TimeoutError as error:
            raise TierLate(f"the cold tier did not answer within {timeout_s:g} s") from error

    def _probe(self, call: Callable[[float | None], T], answer: "Future[T]") -> None:
        try:
            answer.set_result(self._watched(call, self._probe_s))
        except BaseException as error:
            answer.set_exception(error)

    def _watched(self, call: Callable[[float | None], T], timeout_s: float | None) -> T:
        """Makes the call, and tells the breaker how it ended."""
        began_at = time.monotonic()
        try:
            answer = call(timeout_s)
        except TierLate:
            self._breaker.late(time.monotonic() - began_at)
            raise
        except TierRefused:
            self._breaker.answered(time.monotonic() - began_at)
            raise
        except BaseException:
            self._breaker.failed()
            raise
        self._breaker.answered(time.monotonic() - began_at)
        return answer
