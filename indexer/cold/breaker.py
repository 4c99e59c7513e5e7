"""When a tier that fails or is silent is left alone for a while, so that nobody waits for it in vain.

Pure decisions on a clock. Knows no tier; `guarded_reader.py` does what is decided here.

A tier is left alone when it has failed several times in a row, or when calls wait and none was answered for a while.
Then nothing is asked, except for one call now and then, the probe, if no earlier call still waits for its answer. Any
answer, also to an earlier call, ends this. A deadline that is missed is no failure by itself: a slow tier answers some
calls, or at least the probe, and how long it takes to do so is how long it may be silent before it counts as frozen.
And a call that had less time than an answer takes says nothing.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, Literal

import structlog

log = structlog.get_logger(__name__)

FAILURES_IN_A_ROW: Final = 3
"""One or two may be a restart, or calls that were unlucky."""
SILENT_S: Final = 0.3
"""The embedded tier answers in 30 ms, and a question usually waits for 0.2 s: a longer silence only costs it time."""
_AMPLE_S: Final = SILENT_S / FAILURES_IN_A_ROW
"""A call that waited for so long waited long enough, however slow the tier is."""
_SILENT_ANSWERS: Final = 3
"""A tier may be silent for this many times what its last answer took."""
MAX_SILENT_S: Final = 5.0
PROBE_EVERY_S: Final = 0.5

Decision = Literal["ask", "probe", "refuse"]


class Breaker:
    """Any thread may call the methods. Each call that may be made is followed by exactly one of `answered`, `late` and
    `failed`, and must end some time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._resting = False
        self._probe_at = 0.0
        self._failures = 0
        """In a row."""
        self._in_flight = 0
        self._unanswered = 0
        """How many calls are in flight or were late, since the last answer."""
        self._silent_since = 0.0
        """When the first of the unanswered calls began, or when the last answer came, if that was later."""
        self._may_be_silent_s = SILENT_S
        self._short_s = 0.0
        """A call that waited for less than this says nothing."""

    def begin(self) -> Decision:
        """Whether the next call may be made: as usual, as a probe, or not at all. A probe must not end before the tier
        has had ample time, whatever the caller's own time is."""
        with self._lock:
            now = self._clock()
            decision = self._decide(now)
            if decision != "refuse":
                self._in_flight += 1
                self._unanswered += 1
                if self._unanswered == 1:
                    self._silent_since = now
            return decision

    def refuses(self) -> bool:
        """Whether a call would be refused now. For callers who would have to wait before they can make it."""
        with self._lock:
            return self._decide(self._clock()) == "refuse"

    def _decide(self, now: float) -> Decision:
        if not self._resting and self._is_silent(now):
            self._rest(now)
        if not self._resting:
            return "ask"
        return "refuse" if self._in_flight or now < self._probe_at else "probe"

    def answered(self, took_s: float) -> None:
        """Also for a call that the tier has refused: that is an answer."""
        with self._lock:
            if self._resting:
                log.info("the cold tier answers again")
            self._resting = False
            self._failures = 0
            self._in_flight -= 1
            self._unanswered = self._in_flight
            self._silent_since = self._clock()
            self._may_be_silent_s = min(MAX_SILENT_S, max(SILENT_S, _SILENT_ANSWERS * took_s))
            self._short_s = min(took_s, _AMPLE_S)

    def late(self, waited_s: float) -> None:
        with self._lock:
            self._in_flight -= 1
            if waited_s < self._short_s:
                self._unanswered = max(0, self._unanswered - 1)
            self._probe_at = self._clock() + PROBE_EVERY_S

    def failed(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self._unanswered = max(0, self._unanswered - 1)
            self._failures += 1
            now = self._clock()
            self._probe_at = now + PROBE_EVERY_S
            if not self._resting and self._failures >= FAILURES_IN_A_ROW:
                self._rest(now)

    def _is_silent(self, now: float) -> bool:
        return self._unanswered >= FAILURES_IN_A_ROW and now - self._silent_since >= self._may_be_silent_s

    def _rest(self, now: float) -> None:
        log.warning("the cold tier fails or is silent; it is asked only now and then", failures=self._failures)
        self._resting = True
        self._probe_at = now + PROBE_EVERY_S
