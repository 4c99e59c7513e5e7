"""A question to the retriever, as HTTP and gRPC both make it, and the answer that both write out. Plain data, already
checked: knows neither a wire format nor a tier.

Shapes: D dimensions, C candidates.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.tiers import NO_FILTERS, Filters, Scores
from schemas.embeddings import Vector
from schemas.ids import Generation, MemberId, Micros, PostId, Revision

DEFAULT_TIMEOUT_S: Final = 0.2
DetailColumn = Literal["author", "created_at", "revision", "language"]
Tier = Literal["hot", "cold", "trending"]
TIERS: Final[tuple[Tier, ...]] = ("hot", "cold", "trending")
"""A candidate's tier is its index in this tuple."""


class Code(StrEnum):
    """Why an answer is as it is. Clients decide by these codes, so none of them is ever renamed."""

    HOT_CATCHING_UP = "hot_catching_up"
    """The hot feed has not read the topic's newest records since the start. Partial."""
    HOT_BEHIND = "hot_behind"
    """The hot feed has not reached the end of the topic for a while, or cannot ask where it is. Partial."""
    HOT_UNAVAILABLE = "hot_unavailable"
    """The hot tier failed. Partial."""
    COLD_BEHIND = "cold_behind"
    """In some partition the hot tier begins after what the cold tier has written, so posts between may be missing.
    Partial."""
    COLD_LATE = "cold_late"
    """The cold tier did not answer within the question's deadline. Partial."""
    COLD_UNAVAILABLE = "cold_unavailable"
    """The cold tier failed, or it has failed so often that it is not asked for a while. Partial."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """There is no model to encode the text. Partial."""
    MEMBER_UNAVAILABLE = "member_unavailable"
    """The member cannot be looked up, so no posts are given: any of them may be one that the member hid. Partial."""
    MEMBER_UNKNOWN = "member_unknown"
    """The member was never written, or is deleted. The answer is whole."""
    MEMBER_WITHOUT_VECTOR = "member_without_vector"
    """The member has neither a profile nor a history. The answer is whole."""
    TRENDING = "trending"
    """The candidates are what is popular now, because there is no vector. The answer is whole."""
    NOTHING_TRENDING = "nothing_trending"
    """Nothing is popular now. The answer is whole and empty."""


class Reason(NamedTuple):
    code: Code
    detail: str
    """One sentence for people. Holds no path and no address."""


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
