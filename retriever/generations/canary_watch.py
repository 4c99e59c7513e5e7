"""Compares a canary's answers with those of the serving generation, to the questions that either might have been given.

Whether a bound is left is decided beyond chance: a share of bad answers counts as above its bound only if it is so far
above that chance would hardly ever make it so, however often it is looked at. So a few answers can end a canary that
fails each time, and a small difference needs thousands of them.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from retriever.generations.slots import Asked, Trial
from schemas.ids import Generation

_MOST: Final = 20_000
"""Answers of each of the two that are remembered."""
_FEWEST: Final = 20
"""Of each of the two. With fewer answers nothing is said."""
_CHANCE: Final = 1e-6
"""How likely chance may be to end a canary that keeps within its bounds, each time it is judged."""


class CanaryBounds(NamedTuple):
    errors: float
    """By so much may the share of its answers that fail or are partial be above the serving one's."""
    p99_ratio: float
    window_s: float
    recall: float = 0.01
    """By so much may the mean recall of its answers be below the serving one's."""


class Verdict(NamedTuple):
    trial: Trial
    reason: str


class _Seen(NamedTuple):
    at_s: float
    took_s: float | None
    """None: unknown, because it was one of several in a batch."""
    is_bad: bool


class _Missed(NamedTuple):
    at_s: float
    share: float
    """Of what an exact search finds."""


class CanaryWatch:
    """Any thread may call the methods. They do not block."""

    def __init__(self, bounds: CanaryBounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._lock = Lock()
        # All of the following is read and changed under the lock.
        self._trial: Trial | None = None
        self._canary: deque[_Seen] = deque(maxlen=_MOST)
        self._serving: deque[_Seen] = deque(maxlen=_MOST)
        self._missed: dict[Generation, deque[_Missed]] = {}
        """Of the answers that were measured, of every generation: also before there was a trial."""

    def missed(self, generation: Generation, share: float) -> None:
        """The share of what an exact search finds that one answer did not have."""
        with self._lock:
            missed = self._missed.setdefault(generation, deque(maxlen=_MOST))
            missed.append(_Missed(self._clock(), share))

    def forget(self, generations: Collection[Generation]) -> None:
        """All generations but these are closed, and may be built again as others."""
        with self._lock:
            for generation in self._missed.keys() - set(generations):
                del self._missed[generation]

    def saw(self, asked: Asked, took_s: float | None, *, is_bad: bool) -> None:
        """An answer, or that there was none. Questions of no trial do not count."""
        if asked.trial is None:
            return
        seen = _Seen(self._clock(), took_s, is_bad)
        with self._lock:
            if asked.trial != self._trial:
                self._trial = asked.trial
                self._canary.clear()
                self._serving.clear()
            (self._canary if asked.is_canary else self._serving).append(seen)

    def verdict(self) -> Verdict | None:
        """Why the canary is to end. None if it keeps within its bounds, or too little is known."""
        with self._lock:
            trial, oldest_s = self._trial, self._clock() - self._bounds.window_s
            for seen in (self._canary, self._serving):
                _drop_before(seen, oldest_s)
            for window in self._missed.values():
                _drop_before(window, oldest_s)
            canary, serving = list(self._canary), list(self._serving)
            missed, missed_by_serving = self._missed_in(trial)
        if trial is None:
            return None
        reason = None
        if min(len(canary), len(serving)) >= _FEWEST:
            reason = self._errors(canary, serving) or self._slowness(canary, serving)
        reason = reason or self._recall(missed, missed_by_serving)
        return None if reason is None else Verdict(trial, reason)

    def _missed_in(self, trial: Trial | None) -> tuple[list[float], list[float]]:
        """By the canary and by the serving one. Call it under the lock."""
        if trial is None:
            return [], []
        both = (self._missed.get(generation, ()) for generation in (trial.canary.generation, trial.serving))
        own, others = ([missed.share for missed in window] for window in both)
        return own, others

    def _errors(self, canary: list[_Seen], serving: list[_Seen]) -> str | None:
        bad, bad_serving = _num_bad(canary), _num_bad(serving)
        bound = bad_serving / len(serving) + self._bounds.errors
        if not is_beyond_chance(bad, len(canary), bound):
            return None
        return (
            f"{bad} of its {len(canary)} answers failed or were partial, and {bad_serving} of {len(serving)} of the "
            f"serving one; at most {self._bounds.errors:g} more of them may"
        )

    def _recall(self, missed: list[float], missed_by_serving: list[float]) -> str | None:
        if min(len(missed), len(missed_by_serving)) < _FEWEST:
            return None
        share, share_serving = (sum(window) / len(window) for window in (missed, missed_by_serving))
        # The same bound on chance holds for the mean of numbers between 0 and 1 (Hoeffding).
        if not is_beyond_chance(sum(missed), len(missed), share_serving + self._bounds.recall):
            return None
        return (
            f"the recall of {len(missed)} of its answers is {1 - share:.3f}, and {1 - share_serving:.3f} of the "
            f"serving one; at most {self._bounds.recall:g} less is allowed"
        )

    def _slowness(self, canary: list[_Seen], serving: list[_Seen]) -> str | None:
        own = np.array([seen.took_s for seen in canary if seen.took_s is not None])
        others = np.array([seen.took_s for seen in serving if seen.took_s is not None])
        if min(len(own), len(others)) < _FEWEST:
            return None
        p99_s = float(np.percentile(others, 99))
        bound_s = p99_s * self._bounds.p99_ratio
        # By its p99 being above the bound is meant that more than one in a hundred answers takes longer.
        if not is_beyond_chance(int(np.count_nonzero(own > bound_s)), len(own), 0.01):
            return None
        return (
            f"its p99 is {np.percentile(own, 99) * 1000:.0f} ms, and {p99_s * 1000:.0f} ms of the serving one; at most "
            f"{self._bounds.p99_ratio:g} times as long is allowed"
        )


def _drop_before(window: deque[_Seen] | deque[_Missed], oldest_s: float) -> None:
    while window and window[0].at_s < oldest_s:
        window.popleft()


def _num_bad(window: list[_Seen]) -> int:
    return sum(seen.is_bad for seen in window)


def is_beyond_chance(bad: float, total: int, bound: float) -> bool:
    """Whether so many bad ones of a total would hardly ever come about if the true share were the bound (Chernoff's
    bound on the tail of the binomial distribution)."""
    share = bad / total
    if bound >= 1 or share <= bound:
        return False
    distance = share * math.log(share / bound) if bound > 0 else math.inf
    if share < 1:
        distance += (1 - share) * math.log((1 - share) / (1 - bound))
    return total * distance > -math.log(_CHANCE)
