"""How fast a loop may read. Most read as fast as they can; one that others go before is held back by a `Pace`."""

from typing import Final, Protocol


class Pace(Protocol):
    """One is shared by all loops of a process: their threads call it at the same time. No method blocks."""

    def may_read(self) -> bool:
        """Called before each batch. While it is False the loop stays in its group and reads nothing."""
        ...

    def has_read(self, num_records: int) -> None:
        """Called after each batch."""
        ...


class _FullPace:
    def may_read(self) -> bool:
        return True

    def has_read(self, num_records: int) -> None:
        pass


FULL_PACE: Final[Pace] = _FullPace()
