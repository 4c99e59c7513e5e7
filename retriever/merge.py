"""Puts the hits of both tiers together. Pure arithmetic on two sorted lists; knows neither tier.

A post that the hot tier knows, alive or deleted, hides its cold copy, unless the cold revision is newer.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.tiers import Hits, Scores
from schemas.api import Tier
from schemas.ids import PostId, Revision

NO_HITS: Final = Hits([], np.empty(0, np.float32), [])
_UNKNOWN: Final = -1
"""Below every revision, so that a post which the hot tier does not know hides nothing."""


class Merged(NamedTuple):
    """Candidates in the order of (-score, post id)."""

    post_ids: list[PostId]
    scores: list[float]
    tiers: list[Tier]


def merge(hot: Hits, cold: Hits, known: Sequence[Revision | None], k: int) -> Merged:
    """`known` are the hot tier's revisions of the cold hits' posts, asked after both searches."""
    cold_rows = _visible(hot, cold, known)
    hot_rows = _not_outdated(hot, cold, cold_rows)
    ids = [hot.post_ids[row] for row in hot_rows] + [cold.post_ids[row] for row in cold_rows]
    scores = np.concatenate([hot.scores[hot_rows], cold.scores[cold_rows]])
    order = _ranked(ids, scores)[:k]
    rows = order.tolist()
    tiers: list[Tier] = ["hot" if row < len(hot_rows) else "cold" for row in rows]
    return Merged([ids[row] for row in rows], scores[order].tolist(), tiers)


def reaches_past(merged: Merged, cold: Hits, asked: int, k: int) -> bool:
    """Whether a cold post below the last cold hit could still belong into the answer: too many copies were hidden."""
    if len(cold.post_ids) < asked:
        return False
    return len(merged.post_ids) < k or merged.scores[-1] < float(cold.scores[-1])


def _visible(hot: Hits, cold: Hits, known: Sequence[Revision | None]) -> list[int]:
    """Rows of the cold hits that no hot post hides."""
    # A post may leave the hot tier after its search: then its hit is what the hot tier knew.
    found = dict(zip(hot.post_ids, hot.revisions, strict=True))
    return [
        row
        for row, (post_id, revision, newest) in enumerate(zip(cold.post_ids, cold.revisions, known, strict=True))
        if revision > found.get(post_id, _UNKNOWN) and (newest is None or revision > newest)
    ]


def _not_outdated(hot: Hits, cold: Hits, cold_rows: list[int]) -> list[int]:
    """Rows of the hot hits without a visible, hence newer, cold copy."""
    newer = {cold.post_ids[row] for row in cold_rows}
    return [row for row, post_id in enumerate(hot.post_ids) if post_id not in newer]


def _ranked(ids: list[PostId], scores: Scores) -> npt.NDArray[np.intp]:
    """Rows by (-score, post id). Ids are compared only where scores are equal: strings are slow to sort."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    same_as_next = ranked[1:] == ranked[:-1]
    tied = np.zeros(len(ids), np.bool_)
    tied[1:] |= same_as_next
    tied[:-1] |= same_as_next
    if tied.any():
        by_id = np.array(sorted(order[tied].tolist(), key=ids.__getitem__))
        order[tied] = by_id[np.argsort(-scores[by_id], kind="stable")]
    return order
