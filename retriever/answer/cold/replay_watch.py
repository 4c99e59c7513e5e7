"""Notices that records were written to the cold tier again, so that what was kept of its answers may be outdated.

For new records this is not needed: the hot tier holds them too, and hides what they replace.
"""

from collections.abc import Callable


class ReplayWatch:
    """Used by one thread."""

    def __init__(self, replayed: Callable[[], object]) -> None:
        """What `replayed` gives has changed if records were written again. None: not known yet."""
        self._replayed = replayed
        self._last: object = None
        self._had_changed = False

    def has_outdated_answers(self) -> bool:
        """Also once more after the last change: an answer that was under way came in later."""
        replayed = self._replayed()
        has_changed = self._last is not None and replayed != self._last
        outdated = has_changed or self._had_changed
        self._last, self._had_changed = replayed, has_changed
        return outdated
