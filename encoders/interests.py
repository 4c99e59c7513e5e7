"""Several vectors of one member: its interests, as clusters of what it acted on.

Ward's clustering of unit vectors, cut at a distance. A cluster's vector is its medoid: that of a real post, not a mean
between posts. The encode stage and the evaluation of packages make interests by `find_interests`; the retriever and the
evaluation ask with `asked_vectors` and merge their lists by `quota_places`. Knows no model. Shapes: T texts, D
dimensions.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from encoders.package.manifest import MemberVectorsForm
from encoders.prompt.member_mean import WeightedText
from encoders.prompt.prompts import age_s
from schemas.contexts import MemberContext
from schemas.embeddings import Interest, Vector

_AS_NEAR: Final = 1e-5
"""Of two texts with equal weights both are the medoid, and rounding, which differs between processors, would choose."""
OWN_SHARE: Final = 0.5
"""What of an answer comes from a member's one vector, where it has interests too. That vector is what training has
taught to find posts, by all that is known of the member; a medoid is one post's text. So the best half of what it finds
stays, whatever the clusters are, and the other half has each interest."""
_WROTE: Final = "wrote"
"""The entry of a post of the member's own, which is no action on it."""


def acted_texts(form: MemberVectorsForm, context: MemberContext) -> list[WeightedText]:
    """The texts of the posts that the member acted on, newest first. Several actions on one text are one text with the
    sum of their weights: each weighs one, halved for every `half_life_s` of its age."""
    weights: dict[str, float] = {}
    for entry in reversed([] if context.deleted else context.history):
        if entry.action != _WROTE and entry.text.strip():
            decay = age_s(entry.at_us, context.as_of_us) / form.half_life_s
            weights[entry.text] = weights.get(entry.text, 0.0) + 0.5**decay
    return [WeightedText(text, weight) for text, weight in weights.items()]


def find_interests(form: MemberVectorsForm, vectors_TD: Sequence[Vector], weights: Sequence[float]) -> list[Interest]:
    """Heaviest first; empty if it is one interest or none, because then the member's one vector says more. The vectors
    are of length one. A text is left out if it has no weight any more, or if its vector is zeros: it could be no
    medoid, and a cluster of such texts would be an interest that no reader takes."""
    usable = [row for row, weight in enumerate(weights) if weight > 0 and vectors_TD[row].any()]
    vectors_TD, weights = [vectors_TD[row] for row in usable], [weights[row] for row in usable]
    if len(vectors_TD) < 2:
        return []
    texts_TD = np.stack(vectors_TD).astype(np.float64)
    weights_T = np.asarray(weights, dtype=np.float64)
    clusters_T = _clusters(form, texts_TD)
    if clusters_T.max() == clusters_T.min():
        return []
    interests = [_interest(vectors_TD, texts_TD, weights_T, clusters_T == cluster) for cluster in np.unique(clusters_T)]
    # Of equal weights the one with the newer text comes first.
    return [interest for _, interest in sorted(interests, key=lambda found: (-found[1].weight, found[0]))]


def _clusters(form: MemberVectorsForm, texts_TD: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """(T,): the number of each text's cluster."""
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(texts_TD, method="ward")
    clusters_T: npt.NDArray[np.int32] = fcluster(tree, t=form.distance, criterion="distance")
    if clusters_T.max() > form.most:
        clusters_T = fcluster(tree, t=form.most, criterion="maxclust")
    return clusters_T


def _interest(
    vectors_TD: Sequence[Vector],
    texts_TD: npt.NDArray[np.float64],
    weights_T: npt.NDArray[np.float64],
    is_member_T: npt.NDArray[np.bool_],
) -> tuple[int, Interest]:
    """With the row of its newest text. The medoid is the text that is nearest to all others, by their weights; of
    several that are as near, the newest."""
    rows = np.flatnonzero(is_member_T)
    weight = float(weights_T[rows].sum())
    nearness = texts_TD[rows] @ (weights_T[rows] @ texts_TD[rows])
    medoid = int(rows[int(np.argmax(nearness >= nearness.max() - _AS_NEAR * weight))])
    return int(rows[0]), Interest(vectors_TD[medoid], weight)


def asked_vectors(vector_D: Vector, interests: Sequence[Interest]) -> list[Interest]:
    """What a member is asked with: its one vector, and beside it those of its interests. The weights are shares."""
    if not interests:
        return [Interest(vector_D, 1.0)]
    total = sum(interest.weight for interest in interests)
    beside = [Interest(each.vector_D, (1 - OWN_SHARE) * each.weight / total) for each in interests]
    return [Interest(vector_D, OWN_SHARE), *beside]


def quota_places(ranks: npt.NDArray[np.int64], weight_share: float) -> npt.NDArray[np.float64]:
    """Where the candidates of one interest's list stand in the list of all interests; the smaller the better. `ranks`
    count from 0. Of every first k places each interest has its share of the weights."""
    places: npt.NDArray[np.float64] = (ranks + 1) / weight_share
    return places
