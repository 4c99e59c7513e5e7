"""What the hot tier holds, and whether its feed follows the topic."""

from collections.abc import Callable

from indexer.errors import IndexerError
from indexer.tiers import HotTier, Offsets
from retriever.answer import wholeness
from retriever.reasons import Reason


class HotState:
    """Any thread may call the methods. None of them blocks."""

    def __init__(self, hot: HotTier, feed_problem: Callable[[], Reason | None]) -> None:
        self._hot = hot
        self._feed_problem = feed_problem

    def floor(self) -> Offsets:
        """Empty while the tier fails: then nothing that was kept can be used."""
        try:
            return self._hot.floor()
        except IndexerError:
            return {}

    def feed_problem(self) -> Reason | None:
        """Why the tier may not hold the newest records. None if the feed has reached the end of the topic a moment ago.
        Ask before a search: what it says then holds for that search."""
        return self._feed_problem()

    def holds_everything(self) -> bool:
        """Whether the cold tier has nothing to add, so that it need not be asked."""
        return self._feed_problem() is None and wholeness.holds_everything(self.floor())
