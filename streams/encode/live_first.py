"""Which loops of a worker have records. While one has any, nothing that was encoded before is encoded again."""

from threading import Lock


class LiveFirst:
    """Shared by the loops of one worker. Any thread may call the methods."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loops_with_records: set[str] = set()

    def report(self, loop: str, *, has_records: bool) -> None:
        """Whether the newest batch of this loop has records."""
        with self._lock:
            if has_records:
                self._loops_with_records.add(loop)
            else:
                self._loops_with_records.discard(loop)

    def has_records(self) -> bool:
        """Of any loop."""
        return bool(self._loops_with_records)
