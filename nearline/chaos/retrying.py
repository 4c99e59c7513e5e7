"""A part may be away for a moment; the promise is that it answers when it is back."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from indexer.errors import TierUnavailable
from nearline.errors import NotReady, NotRunning
from nearline.pipeline import CommandFailed
from retriever.errors import RetrieverUnavailable
from streams.errors import KafkaUnavailable

RECOVERY_S: Final = 300.0
"""What is not back by then has failed."""
_PAUSE_S: Final = 0.5
_AWAY: Final = (CommandFailed, NotRunning, NotReady, TierUnavailable, RetrieverUnavailable, KafkaUnavailable)

_T = TypeVar("_T")


def retry_while_away(do: Callable[[], _T]) -> _T:
    """Does it again until every part it needs is there. Raises what it raised last when `RECOVERY_S` are over."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return do()
        except _AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
