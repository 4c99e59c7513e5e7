"""How much a package's scores know of popularity, and in which form its prompts had better hold a number.

Owns what is correlated with what. Shapes: P posts, M members, D the package's dimension.
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
from trainer.data.feed import Feed, rows_at
from trainer.evaluation.package_vectors import Matrix, PackageVectors, cut

_POSTS: Final = 2_000


class Correlation(Struct, frozen=True):
    """Pearson's, over posts, of how often an action was done on a post with the mean of the post's scores."""

    field: str
    posts: int
    raw: float
    """Of the counts themselves."""
    percentile: float | None
    """Of the percentiles that the package's table makes of them; None without a table, or where it tells none apart."""


def probe(
    vectors: PackageVectors, package: ModelPackage, feed: Feed, cut_us: Micros, members: Sequence[MemberContext]
) -> list[Correlation]:
    """For each counted action. The posts are the newest 2,000 before the cut that live, each with the counts that the
    pipeline had for it then, also in its prompt where the template names them. A post's score is the product of its
    vector with a member's, here the mean over the members. It is one package that is looked at: that of a
    count and that of its percentile differ by what the table does to the count, not by another training."""
    living = [row for row in rows_at(feed, cut_us).posts.values() if row.body is not None]
    newest = sorted(living, key=lambda row: row.body.created_at_us if row.body else 0)[-_POSTS:]
    posts = [publish_post(row, cut_us)[1] for row in newest]
    mean_D = vectors.members(members).cut(package.dimension).mean(axis=0)
    scores_P = cut(vectors.posts(posts), package.dimension) @ mean_D
    found = []
    for action in COUNTED_ACTIONS:
        field = f"count.{action}"
        counts_P = [post.counts.get(action, 0) for post in posts]
        raw = _correlation(counts_P, scores_P)
        if raw is not None:
            table = package.manifest.quantiles.get(field)
            ranks_P = [percentile(table, count) for count in counts_P] if table else []
            found.append(Correlation(field, len(posts), raw, _correlation(ranks_P, scores_P)))
    return found


def _correlation(numbers_P: Sequence[float], scores_P: Matrix) -> float | None:
    if len(set(numbers_P)) < 2 or not np.std(scores_P):
        return None
    return float(np.corrcoef(numbers_P, scores_P)[0, 1])
