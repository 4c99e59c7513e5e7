"""The progress bar of `nearline replay --wait`: first how many records are done, then which stage is waited for."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from schemas.topics import asks_to_replay

if TYPE_CHECKING:
    from streams.operate.wait import Progress


class ReplayBar:
    """Draws nothing unless `shown`."""

    def __init__(self, total: int, *, shown: bool) -> None:
        from tqdm import tqdm

        self._left: dict[str, int] = {}
        """By topic of requests."""
        self._bar = tqdm(total=total, unit="", leave=False, disable=not shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, progress: "Progress") -> None:
        if progress.records is None:
            self._bar.set_description(f"{progress.stage} does not answer now")
            return
        self._bar.set_description(progress.stage)
        if asks_to_replay(progress.topic):
            self._left[progress.topic] = progress.records
            left = sum(self._left.values())
            # Requests of another command are waited for too.
            self._bar.total = max(self._bar.total, left)
            self._bar.update(self._bar.total - left - self._bar.n)
