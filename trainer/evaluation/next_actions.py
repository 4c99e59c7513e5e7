"""Next actions: each member shall find the fresh post on which it acts next, with what was known just before.

Unlike the evaluation task, whose members stand still at one cut, each action has a context of its own, as the pipeline
would have it at that moment. Owns which actions and posts are measured; knows no scores and no models.
"""

from collections import Counter
from typing import Final, NamedTuple

import numpy as np

from schemas.contexts import MemberContext, PostContext
from schemas.events import Activity
from schemas.ids import MemberId, Micros, PostId
from trainer.data.feed import Feed
from trainer.data.replay import Replay
from trainer.evaluation.package_vectors import PackageVectors, cut
from trainer.evaluation.ranking_metrics import Numbers, Ranks, ranks_of, recall

MIN_ACTIONS_BEFORE: Final = 5
"""An action of a member with fewer positive actions before it is not measured, as in the evaluation task."""
MOST_ACTIONS: Final = 2_000
MOST_POSTS: Final = 20_000
"""The newest ones are taken: more would take a CPU hours to encode, and say little more."""
_ROWS_AT_ONCE: Final = 256


class NextActions(NamedTuple):
    """Shapes: A actions, C candidates."""

    since_us: Micros
    candidates: list[PostContext]
    """All posts created since then."""
    members: list[MemberId]
    """(A,): who acts; a member may be here several times."""
    contexts: list[MemberContext]
    """(A,): of the member just before the action."""
    targets: list[int]
    """(A,): the index of the post among the candidates."""
    at_us: list[Micros]
    """(A,): when. Posts that were created later cannot be found."""

    @property
    def most_candidates(self) -> int:
        """Among how many posts the last action's post had to be found."""
        return sum(post.created_at_us < max(self.at_us, default=0) for post in self.candidates)

    def of_members(self, values_A: Numbers) -> Numbers:
        """The mean of each member: its actions are not independent of each other, but members are."""
        rows = {member_id: row for row, member_id in enumerate(dict.fromkeys(self.members))}
        rows_A = np.array([rows[member_id] for member_id in self.members], dtype=np.int64)
        means_M: Numbers = np.bincount(rows_A, values_A) / np.bincount(rows_A)
        return means_M


def next_actions(feed: Feed, since_us: Micros) -> NextActions:
    """The newest actions after that time, each member's first one on a post that was created after it too."""
    created_us = sorted(post.created_at_us for post in feed.posts.values())
    if len(created_us) > MOST_POSTS:
        since_us = max(since_us, Micros(created_us[-MOST_POSTS]))
    candidates = [post for post in feed.posts.values() if post.created_at_us >= since_us]
    index_of = {post.post_id: index for index, post in enumerate(candidates)}
    targets = _targets(feed, index_of)
    members, at_us = [target.member_id for target in targets], [target.at_us for target in targets]
    indices = [target.candidate for target in targets]
    return NextActions(since_us, candidates, members, _contexts_before(feed, targets), indices, at_us)


class _Target(NamedTuple):
    at_us: Micros
    member_id: MemberId
    post_id: PostId
    candidate: int


def _targets(feed: Feed, index_of: dict[PostId, int]) -> list[_Target]:
    num_before: Counter[MemberId] = Counter()
    seen: set[tuple[MemberId, PostId]] = set()
    targets: list[_Target] = []
    for positive in feed.positives:
        member_id, post_id = positive.member_id, positive.post_id
        is_first = (member_id, post_id) not in seen
        if is_first and post_id in index_of and num_before[member_id] >= MIN_ACTIONS_BEFORE:
            targets.append(_Target(positive.at_us, member_id, post_id, index_of[post_id]))
        seen.add((member_id, post_id))
        num_before[member_id] += 1
    return targets[-MOST_ACTIONS:]


def _contexts_before(feed: Feed, targets: list[_Target]) -> list[MemberContext]:
    replay = Replay(feed.rules)
    contexts: list[MemberContext] = []
    for timed in feed.events:
        if len(contexts) == len(targets):
            break
        at_us, member_id, post_id, _ = targets[len(contexts)]
        event = timed.event
        if isinstance(event, Activity) and (timed.at_us, event.member_id, event.post_id) == (at_us, member_id, post_id):
            contexts.append(replay.context(member_id, at_us))
        replay.apply(timed)
    return contexts


def ranks_by_package(actions: NextActions, vectors: PackageVectors, dimension: int) -> Ranks:
    """For each action the rank of its post, among those that were there by then."""
    posts_CD = cut(vectors.posts(actions.candidates), dimension)
    members = vectors.members(actions.contexts)
    created_C = np.array([post.created_at_us for post in actions.candidates], dtype=np.int64)
    ranks: Ranks = []
    for first in range(0, len(actions.targets), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        targets = [[target] for target in actions.targets[rows]]
        at_us_A = np.array(actions.at_us[rows], dtype=np.int64)
        is_later_AC = created_C[None, :] > at_us_A[:, None]
        ranks += ranks_of(members.rows(rows).scores(posts_CD, is_later_AC), targets)
    return ranks


def recalls(actions: NextActions, ranks: Ranks, k: int) -> Numbers:
    """(M,): the recall of each member."""
    return actions.of_members(recall(ranks, k))
