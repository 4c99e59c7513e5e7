"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, look_every_s: float = 0.2, *, timeout_s: float = 600.0) -> None:
    """Raises RuntimeError after `timeout_s`, which is far longer than anything here takes."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(look_every_s)
