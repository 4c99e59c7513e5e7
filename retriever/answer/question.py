"""A question to the retriever, as HTTP and gRPC both make it, and the answer that both write out. Plain data, already
checked: knows neither a wire format nor a tier.

Shapes: D dimensions, C candidates.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from indexer.tiers import NO_FILTERS, Filters, Scores
from retriever.errors import RequestRefused
from retriever.reasons import Reason
from schemas.api import ProblemCode
from schemas.embeddings import Vector
from schemas.ids import Generation, MemberId, Micros, PostId, Revision

DEFAULT_TIMEOUT_S: Final = 0.2
DetailColumn = Literal["author", "created_at", "revision", "language"]
Tier = Literal["hot", "cold", "trending"]
TIERS: Final[tuple[Tier, ...]] = ("hot", "cold", "trending")
"""A candidate's tier is its index in this tuple."""


@dataclass(frozen=True, slots=True)
class Question:
    """Exactly one of `member_id`, `text`, `vector_D` and `post_ids` is set."""

    member_id: MemberId | None = None
    text: str | None = None
    vector_D: Vector | None = None
    """Of length one."""
    post_ids: tuple[PostId, ...] = ()
    """Similar posts are asked for: the query is the mean of these posts' vectors, and these posts are left out."""
    k: int = 2000
    filters: Filters = NO_FILTERS
    """What the request names. The retriever adds the member's hidden, own, acted and seen posts."""
    hide_acted: bool = False
    hide_seen: bool = False
    own_posts: bool = False
    columns: frozenset[DetailColumn] = frozenset()
    """Which further columns the answer has."""
    generation: Generation | None = None
    """None: the serving one."""
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates as columns, best first, by (-score, post id)."""

    generation: Generation
    partial: bool
    """Something is missing; `reasons` says what."""
    reasons: list[Reason]
    post_ids: list[PostId]
    scores_C: Scores
    tiers_C: npt.NDArray[np.uint8]
    """Indexes into `TIERS`."""
    timings_ms: dict[str, float]
    authors: list[MemberId] | None = None
    created_at_us: list[Micros] | None = None
    revisions: list[Revision] | None = None
    languages: list[str | None] | None = None

    @property
    def counts(self) -> dict[Tier, int]:
        """How many candidates each tier gave."""
        counts = np.bincount(self.tiers_C, minlength=len(TIERS)).tolist()
        return dict(zip(TIERS, counts, strict=True))


@dataclass(frozen=True, slots=True)
class PostVectors:
    """Vectors of posts as columns, in the order in which their ids were asked for. A post that is unknown or deleted
    has revision 0 and a vector of zeros."""

    generation: Generation
    post_ids: list[PostId]
    revisions: list[Revision]
    vectors_CD: Vector = field(repr=False)
    reasons: list[Reason]
    """Why some may be outdated, or of posts that are deleted."""

    @property
    def partial(self) -> bool:
        return bool(self.reasons)

    def cut(self, dimension: int) -> "PostVectors":
        """The first numbers of each, of length one again. Raises RequestRefused if there are fewer."""
        if dimension > self.vectors_CD.shape[1]:
            raise RequestRefused(
                f"dimension: it is {dimension}; the vectors of this generation have {self.vectors_CD.shape[1]}",
                code=ProblemCode.BAD_FIELD,
            )
        shorter_CD = self.vectors_CD[:, :dimension]
        lengths_C1 = np.linalg.norm(shorter_CD, axis=1, keepdims=True)
        unit_CD = np.divide(shorter_CD, lengths_C1, out=np.zeros_like(shorter_CD), where=lengths_C1 > 0)
        return replace(self, vectors_CD=unit_CD)
