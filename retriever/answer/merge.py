"""Puts the hits of both tiers together. Pure arithmetic on sorted lists; knows neither tier.

Of each post the newest revision counts: as the hot search saw it, as the cold search saw it, or as the hot tier holds
it now, after both. The last matters for posts that came into the hot tier, or changed there, while the searches ran.
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


class HotNow(NamedTuple):
    """What the hot tier says after both searches."""

    changed_rows: Sequence[int]
    """Rows of the cold hits, as `changed_meanwhile` finds them."""
    changed: Hits
    """Of the posts of these rows those that are live and pass the filters, with their scores now."""


UNCHANGED: Final = HotNow([], NO_HITS)


class Merged(NamedTuple):
    """Candidates in the order of (-score, post id)."""

    post_ids: list[PostId]
    scores: list[float]
    tiers: list[Tier]


NO_CANDIDATES: Final = Merged([], [], [])


def changed_meanwhile(hot: Hits, cold: Hits, revisions: Sequence[Revision | None]) -> list[int]:
    """Rows of the cold hits whose post the hot tier now holds in a newer revision than either search saw. `revisions`
    has that of each cold hit's live or deleted post, None where the tier does not know it."""
    by_hot_search = _revisions_of(hot)
    return [
        row
        for row, (post_id, revision, now) in enumerate(zip(cold.post_ids, cold.revisions, revisions, strict=True))
        if now is not None and now > max(revision, by_hot_search.get(post_id, _UNKNOWN))
    ]


def merge(hot: Hits, cold: Hits, hot_now: HotNow, k: int) -> Merged:
    """The best k of the newest revisions."""
    cold_rows = _newer_than_hot(hot, cold, set(hot_now.changed_rows))
    replaced = {cold.post_ids[row] for row in (*hot_now.changed_rows, *cold_rows)}
    hot_rows = [row for row, post_id in enumerate(hot.post_ids) if post_id not in replaced]
    changed = hot_now.changed
    ids = [*(hot.post_ids[row] for row in hot_rows), *changed.post_ids, *(cold.post_ids[row] for row in cold_rows)]
    scores = np.concatenate([hot.scores[hot_rows], changed.scores, cold.scores[cold_rows]])
    order = _ranked(ids, scores)[:k]
    num_hot = len(ids) - len(cold_rows)
    rows = order.tolist()
    tiers: list[Tier] = ["hot" if row < num_hot else "cold" for row in rows]
    return Merged([ids[row] for row in rows], scores[order].tolist(), tiers)


def reaches_past(merged: Merged, hits: Hits, asked: int, k: int) -> bool:
    """Whether a post below the last hit of a tier could still belong into the answer: too many of the hits were hidden
    or replaced."""
    if len(hits.post_ids) < asked:
        return False
    return len(merged.post_ids) < k or merged.scores[-1] < float(hits.scores[-1])


def _newer_than_hot(hot: Hits, cold: Hits, changed_rows: set[int]) -> list[int]:
    """Rows of the cold hits that are the newest of their post. Where the hot tier holds the same revision and the hot
    search does not show it, the cold copy stays: the post came in after that search, or is below its last hit."""
    by_hot_search = _revisions_of(hot)
    return [
        row
        for row, (post_id, revision) in enumerate(zip(cold.post_ids, cold.revisions, strict=True))
        if row not in changed_rows and revision > by_hot_search.get(post_id, _UNKNOWN)
    ]


def _revisions_of(hits: Hits) -> dict[PostId, Revision]:
    return dict(zip(hits.post_ids, hits.revisions, strict=True))


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
