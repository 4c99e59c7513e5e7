"""Who asks next: members by Zipf's law, as a few members of a service ask most of its questions."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from schemas.ids import Revision

CHANGE_EVERY: Final = 100
"""A member's vector changes before every hundredth question of this member."""
_DRAWN_AT_ONCE: Final = 10_000


class Questions:
    """An endless sequence of member numbers. Calls `change` with a member and the new revision when its vector changes.

    Members are in the middle of their first hundred questions when it begins, each at another place. Otherwise the
    vectors of those who ask seldom would never change in a short run."""

    def __init__(self, num_members: int, change: Callable[[int, Revision], None], seed: int = 0) -> None:
        weights = 1.0 / np.arange(1, num_members + 1)
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._rng = np.random.default_rng(seed)
        self._change = change
        self._num_asked = self._rng.integers(0, CHANGE_EVERY, num_members).tolist()
        self._revisions = [1] * num_members
        self.num_changes = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            for member in np.searchsorted(self._cumulative, self._rng.random(_DRAWN_AT_ONCE)).tolist():
                self._num_asked[member] += 1
                if self._num_asked[member] % CHANGE_EVERY == 0:
                    self._revisions[member] += 1
                    self.num_changes += 1
                    self._change(member, Revision(self._revisions[member]))
                yield member
