"""The moment at which a call to the cold tier has to be answered."""

import math
import time
from typing import Final

from indexer.errors import TierLate


class Deadline:
    def __init__(self, seconds: float, answerer: str = "the cold process") -> None:
        """So many seconds from now on; infinity: there is none. `answerer` is whom the error names."""
        self.seconds = seconds
        self._answerer = answerer
        self._at = time.monotonic() + seconds

    def left_s(self) -> float | None:
        """Seconds until then, always above zero; None if there is no such moment. Raises TierLate when it is over."""
        if self._at == math.inf:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def missed(self) -> TierLate:
        return TierLate(f"{self._answerer} did not answer within {self.seconds:g} s")


NEVER: Final = Deadline(math.inf)
