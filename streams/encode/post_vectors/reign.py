"""A reign: the time in which one generation serves, and so writes `post-vectors`. A generation that serves again after
another one begins a new reign, and writes everything again.

Plain data; knows no client.
"""

from datetime import datetime
from typing import NamedTuple

from schemas.ids import Generation
from schemas.post_vectors import beginning_of_tag
from schemas.topics import post_embeddings


class Reign(NamedTuple):
    generation: Generation
    since: datetime
    """When the generation began to serve: no two reigns of it have the same."""
    dimension: int
    """Of the vectors that are written."""
    is_text: bool
    """Whether a post's prompt is its text alone. Then its vector is cut and nothing is encoded for this."""

    @property
    def source(self) -> str:
        """The topic of the embeddings that vectors are taken from."""
        return post_embeddings(self.generation)

    @property
    def tag(self) -> str:
        """Committed with each offset. Has no semicolon, which ends it there."""
        return f"{beginning_of_tag(self.generation, self.since)}{self.dimension}"
