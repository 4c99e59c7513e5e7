"""Which calls are tried again, and when. Knows neither gRPC nor sleeping, so that both clients share it.

Every call only reads, so trying again is always safe. What it must not do is multiply the load on a retriever that is
already in trouble. So a client has a budget: of all its requests together at most one in ten is tried again, after ten
at the start.
"""

import random
import time
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

from retriever.errors import DeadlineExceeded, RetrieverError, RetrieverUnavailable

MAX_RETRIES: Final = 3
"""Of one call."""
FIRST_PAUSE_S: Final = 0.02
MAX_PAUSE_S: Final = 1.0
_SPREAD: Final = 0.2
"""All clients that were refused together are told the same time to come back. Each waits up to so much longer."""

Uniform = Callable[[float, float], float]
"""A random number between the two."""


class Failure(NamedTuple):
    """One attempt that failed."""

    error: RetrieverError
    may_pass: bool
    """The same request may succeed if it is sent again."""


class RetryBudget:
    """A bucket of tokens, shared by all threads of a client: a retry takes one, a request puts a tenth of one in."""

    def __init__(self, ratio: float = 0.1, capacity: float = 10.0) -> None:
        self._ratio = ratio
        self._capacity = capacity
        self._tokens = capacity
        self._lock = Lock()

    def count_request(self) -> None:
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._ratio)

    def take(self) -> bool:
        """False if there is no token left; then nothing may be tried again now."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Attempts:
    """The attempts of one call, which together may take `timeout_s`. For one thread."""

    def __init__(
        self,
        budget: RetryBudget,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._budget = budget
        self._clock = clock
        self._uniform = uniform
        self._ends_at = clock() + timeout_s
        self._retries = 0
        self._last_error: RetrieverError | None = None
        budget.count_request()

    def left_s(self) -> float:
        """How long the next attempt may take. If no time is left, raises the error of the last attempt, or
        DeadlineExceeded before the first one."""
        left_s = self._ends_at - self._clock()
        if left_s <= 0.0:
            raise self._last_error or DeadlineExceeded("the time for this call is over; give it a longer timeout_s")
        return left_s

    def pause_s(self, failure: Failure) -> float:
        """How long to wait before the next attempt. Raises the failure's error if there is to be none: it cannot pass,
        the wait would be longer than the time left, this call was repeated often enough, or the budget is used up."""
        pause_s = self._next_pause_s(failure.error)
        if (
            not failure.may_pass
            or self._retries == MAX_RETRIES
            or self._clock() + pause_s >= self._ends_at
            or not self._budget.take()
        ):
            raise failure.error
        self._last_error = failure.error
        self._retries += 1
        return pause_s

    def _next_pause_s(self, error: RetrieverError) -> float:
        """What the retriever said, or else any time up to a limit that doubles with each retry."""
        told_s = error.retry_after_s if isinstance(error, RetrieverUnavailable) else None
        if told_s is not None:
            return told_s + self._uniform(0.0, _SPREAD * told_s)
        return self._uniform(0.0, min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**self._retries))
