"""Merges the hits of both tiers into the best k. Pure arithmetic on sorted lists; knows neither tier.

The newest revision of a post counts. There are three sources of it: the hot search, the cold search, and a look into
the hot tier after both. The look finds posts that were written to the hot tier while the searches ran.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from indexer.best import best_k
from indexer.tiers import Hits
from schemas.api import Tier
from schemas.ids import PostId, Revision

NO_HITS: Final = Hits([], np.empty(0, np.float32), [])
_UNKNOWN: Final = -1
"""The revision of a post that the hot search did not return: below every real one, so that it hides no cold hit."""


class HotNow(NamedTuple):
    """What the hot tier holds after both searches."""

    changed_rows: Sequence[int]
    """Rows of the cold hits whose post has changed, from `changed_meanwhile`."""
    changed: Hits
    """The posts of these rows that are live and pass the filters, with their new scores."""


UNCHANGED: Final = HotNow([], NO_HITS)


class Merged(NamedTuple):
    """Candidates, sorted by (-score, post id)."""

    post_ids: list[PostId]
    scores: list[float]
    tiers: list[Tier]


NO_CANDIDATES: Final = Merged([], [], [])


def changed_meanwhile(hot: Hits, cold: Hits, revisions: Sequence[Revision | None]) -> list[int]:
    """Rows of the cold hits whose post the hot tier now holds in a newer revision than both searches saw. `revisions`
    has one entry per cold hit: the revision of the live or deleted post in the hot tier, None if it does not know the
    post."""
    hot_revisions = _revisions_of(hot)
    return [
        row
        for row, (post_id, revision, now) in enumerate(zip(cold.post_ids, cold.revisions, revisions, strict=True))
        if now is not None and now > max(revision, hot_revisions.get(post_id, _UNKNOWN))
    ]


def merge(hot: Hits, cold: Hits, hot_now: HotNow, k: int) -> Merged:
    """The best k of the newest revisions."""
    # Of each post one copy stays: the one that has changed meanwhile, else the newer one of the two searches.
    cold_rows = _newer_than_hot(hot, cold, set(hot_now.changed_rows))
    replaced = {cold.post_ids[row] for row in (*hot_now.changed_rows, *cold_rows)}
    hot_rows = [row for row, post_id in enumerate(hot.post_ids) if post_id not in replaced]
    changed = hot_now.changed
    ids = [*(hot.post_ids[row] for row in hot_rows), *changed.post_ids, *(cold.post_ids[row] for row in cold_rows)]
    scores = np.concatenate([hot.scores[hot_rows], changed.scores, cold.scores[cold_rows]])
    best = best_k(scores, k, ids)
    num_hot = len(ids) - len(cold_rows)
    rows = best.tolist()
    tiers: list[Tier] = ["hot" if row < num_hot else "cold" for row in rows]
    return Merged([ids[row] for row in rows], scores[best].tolist(), tiers)


def may_miss_posts(merged: Merged, hits: Hits, limit: int, k: int) -> bool:
    """Whether a post below the last hit of a tier could still belong in the answer, because too many of its hits were
    hidden or replaced. Then the tier has to be asked for more than `limit` hits."""
    if len(hits.post_ids) < limit:
        return False
    return len(merged.post_ids) < k or merged.scores[-1] < float(hits.scores[-1])


def _newer_than_hot(hot: Hits, cold: Hits, changed_rows: set[int]) -> list[int]:
    """Rows of the cold hits that are the newest revision of their post. If the hot tier holds the same revision but the
    hot search did not return it, the cold copy stays: the post came in after the hot search, or is below its last
    hit."""
    hot_revisions = _revisions_of(hot)
    return [
        row
        for row, (post_id, revision) in enumerate(zip(cold.post_ids, cold.revisions, strict=True))
        if row not in changed_rows and revision > hot_revisions.get(post_id, _UNKNOWN)
    ]


def _revisions_of(hits: Hits) -> dict[PostId, Revision]:
    return dict(zip(hits.post_ids, hits.revisions, strict=True))
