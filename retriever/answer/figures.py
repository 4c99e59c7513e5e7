"""What a retriever says of itself, for metrics."""

from typing import NamedTuple

from retriever.answer.cold.kept_answers import KeptCounts
from schemas.ids import Generation


class Figures(NamedTuple):
    """Of one generation."""

    generation: Generation
    ready: bool
    """Whether whole answers are possible."""
    hot_posts: int
    members: int
    """Held in memory, the deleted ones included."""
    kept: KeptCounts
