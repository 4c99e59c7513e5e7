"""What the vectors are worth to somebody else's ranker: by how much the cosine of member and post raises the AUC of a
logistic ranker that knows popularity and author.

The ranker learns from the earlier half of the held out impressions and is measured on the later half, so it sees no
score of what the package was trained on. Owns which impressions count, what is known of each just before, and the two
rankers. Shapes: I impressions, F features.
"""

from collections import Counter
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from contexts.actions import is_positive
from encoders.package.model_package import ModelPackage
from schemas.events import Activity, PostCreated, PostUpdated
from schemas.ids import MemberId, Micros, PostId
from trainer.data.feed import Feed, post_activity
from trainer.data.replay import replay_until
from trainer.evaluation.package_vectors import PackageVectors, cut
from trainer.evaluation.ranking_metrics import Numbers

MOST_IMPRESSIONS: Final = 20_000
"""The newest ones are taken."""
_MIN_OF_A_KIND: Final = 10
"""Fewer impressions with an action, or without one, say nothing."""
_NUM_RESAMPLES: Final = 200


class RankerGain(Struct, frozen=True):
    """Of the later half of the held out impressions."""

    impressions: int
    acted: int
    """How many of them the member then acted on."""
    auc_without: float
    """By popularity and author."""
    auc_with: float
    """By these and the cosine."""
    share_better: float
    """In what share of the resamples, drawn over members, the latter is higher."""


class Impressions(NamedTuple):
    """In the order of their time."""

    members: list[MemberId]
    posts: list[PostId]
    acted_I: npt.NDArray[np.bool_]
    """Whether the member acted on the post later."""
    known_IF: Numbers
    """What a ranker without vectors knows just before: positive actions on the post, and on a post of its author on
    average, as logarithms."""


def ranker_gain(feed: Feed, cut_us: Micros, package: ModelPackage, *, device: str = "auto") -> RankerGain | None:
    """Members are as they were just before the cut, posts as they were created. None if the events hold too few
    impressions from the cut on."""
    shown = held_out_impressions(feed, cut_us)
    half = len(shown.posts) // 2
    learned, measured = shown.acted_I[:half], shown.acted_I[half:]
    if min(_fewest(learned), _fewest(measured)) < _MIN_OF_A_KIND:
        return None
    with_cosine_IF = np.column_stack([shown.known_IF, cosines(feed, cut_us, shown, package, device=device)])
    without, with_cosine = (_scores(features_IF, learned) for features_IF in (shown.known_IF, with_cosine_IF))
    return RankerGain(
        impressions=len(measured),
        acted=int(measured.sum()),
        auc_without=float(roc_auc_score(measured, without)),
        auc_with=float(roc_auc_score(measured, with_cosine)),
        share_better=_share_better(measured, with_cosine, without, shown.members[half:]),
    )


def held_out_impressions(feed: Feed, cut_us: Micros) -> Impressions:
    """The first impression of each post on each member, from the cut on, unless the member acted on it before."""
    num_on_post: Counter[PostId] = Counter()
    num_on_author: Counter[MemberId] = Counter()
    posts_of_author: Counter[MemberId] = Counter()
    created: set[PostId] = set()
    acted: set[tuple[MemberId, PostId]] = set()
    rows: dict[tuple[MemberId, PostId], tuple[float, float]] = {}
    for at_us, _, _, event in feed.events:
        if isinstance(event, PostCreated | PostUpdated) and event.post_id not in created:
            created.add(PostId(event.post_id))
            posts_of_author[feed.posts[PostId(event.post_id)].author_id] += 1
        if not isinstance(event, Activity) or event.post_id not in feed.posts:
            continue
        pair = member_id, post_id = MemberId(event.member_id), PostId(event.post_id)
        author_id = feed.posts[post_id].author_id
        if event.action == "impression":
            if at_us >= cut_us and pair not in acted:
                of_author = num_on_author[author_id] / max(posts_of_author[author_id], 1)
                rows.setdefault(pair, (np.log1p(num_on_post[post_id]), np.log1p(of_author)))
        elif is_positive(post_activity(at_us, event), feed.rules):
            acted.add((member_id, post_id))
            num_on_post[post_id] += 1
            num_on_author[author_id] += 1
    pairs = list(rows)[-MOST_IMPRESSIONS:]
    return Impressions(
        [member_id for member_id, _ in pairs],
        [post_id for _, post_id in pairs],
        np.array([pair in acted for pair in pairs], dtype=np.bool_),
        np.array([rows[pair] for pair in pairs], dtype=np.float64).reshape(-1, 2),
    )


def cosines(feed: Feed, cut_us: Micros, shown: Impressions, package: ModelPackage, *, device: str = "auto") -> Numbers:
    """(I,): of the member's vector and the post's; 0 for a member without a vector."""
    vectors = PackageVectors(package, device=device)
    replay = replay_until(feed, cut_us)
    members, posts = list(dict.fromkeys(shown.members)), list(dict.fromkeys(shown.posts))
    contexts = [replay.context(member_id, cut_us) for member_id in members]
    members_MD = vectors.members(contexts).cut(package.dimension)
    posts_PD = cut(vectors.posts([feed.posts[post_id] for post_id in posts]), package.dimension)
    row_of_member = {member_id: row for row, member_id in enumerate(members)}
    row_of_post = {post_id: row for row, post_id in enumerate(posts)}
    members_ID = members_MD[[row_of_member[member_id] for member_id in shown.members]]
    posts_ID = posts_PD[[row_of_post[post_id] for post_id in shown.posts]]
    cosines_I: Numbers = np.einsum("id,id->i", members_ID, posts_ID, dtype=np.float64)
    return cosines_I


def _fewest(acted_I: npt.NDArray[np.bool_]) -> int:
    return int(min(acted_I.sum(), (~acted_I).sum()))


def _scores(features_IF: Numbers, learned: npt.NDArray[np.bool_]) -> Numbers:
    """Of the impressions that the ranker did not learn from."""
    ranker = make_pipeline(StandardScaler(), LogisticRegression())
    ranker.fit(features_IF[: len(learned)], learned)
    scores: Numbers = ranker.decision_function(features_IF[len(learned) :])
    return scores


def _share_better(
    acted_I: npt.NDArray[np.bool_], scores: Numbers, rival_scores: Numbers, members: list[MemberId]
) -> float:
    """Members are drawn, because the impressions of one are not independent of each other."""
    rows_of: dict[MemberId, list[int]] = {}
    for row, member_id in enumerate(members):
        rows_of.setdefault(member_id, []).append(row)
    groups = [np.array(rows) for rows in rows_of.values()]
    rng = np.random.default_rng(0)
    num_better = num_drawn = 0
    for _ in range(_NUM_RESAMPLES):
        rows = np.concatenate([groups[group] for group in rng.integers(0, len(groups), size=len(groups))])
        acted = acted_I[rows]
        if _fewest(acted):
            num_drawn += 1
            num_better += bool(roc_auc_score(acted, scores[rows]) > roc_auc_score(acted, rival_scores[rows]))
    return num_better / max(num_drawn, 1)
