"""Repeats a call to the pipeline until the parts it needs are back: after a fault a part may be away for a while."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from indexer.errors import TierUnavailable
from nearline.errors import NotReady, NotRunning
from nearline.pipeline import CommandFailed
from retriever.errors import RetrieverUnavailable
from streams.errors import KafkaUnavailable

RECOVERY_S: Final = 300.0
"""A part that is away for longer has failed."""
_PAUSE_S: Final = 0.5
_AWAY: Final = (CommandFailed, NotRunning, NotReady, TierUnavailable, RetrieverUnavailable, KafkaUnavailable)

_T = TypeVar("_T")


def retry_while_away(call: Callable[[], _T]) -> _T:
    """Calls again while a part is away. When `RECOVERY_S` are over the call's last error is raised."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return call()
        except _AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
