"""What a retriever says of itself, for metrics."""

from typing import NamedTuple

from retriever.answer.cold.kept_answers import KeptCounts
from retriever.feed.member_store import MemberCounts
from schemas.ids import Generation


class Figures(NamedTuple):
    """Of one generation."""

    generation: Generation
    ready: bool
    """Whether whole answers are possible."""
    hot_posts: int
    members: MemberCounts
    kept: KeptCounts
