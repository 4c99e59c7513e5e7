"""How many tokens a batch may hold. The number falls when memory runs out, and rises again."""

from typing import Final

_FIRST_PATIENCE: Final = 16
_MOST_PATIENCE: Final = 1024


class TokenBudget:
    """Halved when a batch does not fit; doubled, up to where it began, after a number of batches that did fit. That
    number doubles whenever the larger budget turns out to be too large at once, so that a device which stays full costs
    ever fewer tries. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.reset()

    def reset(self) -> None:
        self.tokens = self.most
        self._patience = _FIRST_PATIENCE
        """So many batches must fit before the budget grows."""
        self._fitted = 0
        self._has_grown = False

    def fits(self, num_tokens: int, allowed: int) -> None:
        """A batch of so many tokens fitted, of those that it was allowed. A small one says nothing of the budget."""
        if 2 * num_tokens < allowed:
            return
        self._fitted += 1
        if self._fitted < self._patience:
            return
        if self._has_grown:
            self._patience = _FIRST_PATIENCE
        self._has_grown = self.tokens < self.most
        self.tokens = min(self.most, 2 * self.tokens)
        self._fitted = 0

    def halve(self, num_tokens: int) -> None:
        """A batch of so many tokens has not fitted."""
        if self._has_grown:
            self._patience = min(_MOST_PATIENCE, 2 * self._patience)
        self.tokens = max(1, min(self.tokens, num_tokens) // 2)
        self._fitted = 0
        self._has_grown = False
