"""How much a package's scores follow popularity, and in which form a prompt had better hold a count.

Owns what is correlated with what. Shapes: P posts, D the package's dimension.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from contexts.posts import publish_post
from encoders.package.model_package import ModelPackage
from encoders.package.quantiles import percentile
from schemas.contexts import COUNTED_ACTIONS, MemberContext
from schemas.ids import Micros
from trainer.data.feed import Feed
from trainer.data.replay import replay_until
from trainer.evaluation.package_vectors import Matrix, PackageVectors, cut

_NUM_POSTS: Final = 2_000


class Correlation(Struct, frozen=True):
    """Pearson's correlation, over posts, of how often an action was done on a post with the post's mean score."""

    field: str
    posts: int
    raw: float
    """With the counts themselves."""
    percentile: float | None
    """With the percentiles that the package's table makes of the counts. None without a table, or where all counts have
    the same percentile."""


def popularity_correlations(
    vectors: PackageVectors, package: ModelPackage, feed: Feed, cut_us: Micros, members: Sequence[MemberContext]
) -> list[Correlation]:
    """One for each counted action.

    The posts are the newest 2,000 that are alive at the cut, with the counts that the pipeline had for them then; where
    the template names counts, the posts' prompts hold them too. A post's score is the product of its vector with a
    member's, as the mean over the members. Both correlations come from the same scores of one package: they differ by
    what the table makes of a count, not by another training.
    """
    live_rows = [row for row in replay_until(feed, cut_us).posts.values() if row.body is not None]
    newest = sorted(live_rows, key=lambda row: row.body.created_at_us if row.body else 0)[-_NUM_POSTS:]
    posts = [publish_post(row, cut_us)[1] for row in newest]
    mean_D = vectors.members(members).cut(package.dimension).mean(axis=0)
    scores_P = cut(vectors.posts(posts), package.dimension) @ mean_D
    correlations = []
    for action in COUNTED_ACTIONS:
        field = f"count.{action}"
        counts_P = [post.counts.get(action, 0) for post in posts]
        raw = _correlation(counts_P, scores_P)
        if raw is not None:
            table = package.manifest.quantiles.get(field)
            percentiles_P = [percentile(table, count) for count in counts_P] if table else []
            correlations.append(Correlation(field, len(posts), raw, _correlation(percentiles_P, scores_P)))
    return correlations


def _correlation(numbers_P: Sequence[float], scores_P: Matrix) -> float | None:
    if len(set(numbers_P)) < 2 or not np.std(scores_P):
        return None
    return float(np.corrcoef(numbers_P, scores_P)[0, 1])
