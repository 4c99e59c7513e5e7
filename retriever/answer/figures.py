"""What a retriever says of itself, for metrics."""

from types import MappingProxyType
from typing import NamedTuple

from indexer.tiers import Offsets
from retriever.answer.cold.kept_answers import KeptCounts
from retriever.answer.online_recall import RecallFigures
from retriever.feed.member_store import MemberCounts
from schemas.ids import Generation, Micros


class Figures(NamedTuple):
    """Of one generation."""

    generation: Generation
    ready: bool
    """Whether whole answers are possible."""
    hot_posts: int
    hot_tombstones: int
    members: MemberCounts
    kept: KeptCounts
    hot_floor: Offsets = MappingProxyType({})
    """From which offset of each partition on the hot tier holds everything."""
    cold_position: Offsets = MappingProxyType({})
    """Up to which offset the cold tier has written everything, as far as it said last."""
    trending_at_us: Micros | None = None
    """Of when the newest trending list is. None if there is none."""
    recall: RecallFigures = RecallFigures(0, 0.0, MappingProxyType({}))
