"""The evaluation task: each member shall find the fresh posts that it acted on from the cut on.

Owns the protocol's choice of candidates, targets and members. Knows no scores and no models.
"""

from typing import Final, NamedTuple

from schemas.contexts import PostContext
from schemas.ids import MemberId, Micros, PostId
from trainer.data.feed import Feed
from trainer.errors import BadEvents

_MIN_ACTIONS_BEFORE: Final = 5
"""The protocol does not measure a member with fewer actions before the cut."""


class EvaluationTask(NamedTuple):
    cut_us: Micros
    candidates: list[PostContext]
    """All posts created at or after the cut."""
    targets: dict[MemberId, list[int]]
    """For every member that has any: the indices of its targets among the candidates, each once."""
    acted: dict[MemberId, list[PostId]]
    """For the same members: the posts that it acted on before the cut, oldest first, as often as it acted on them."""

    @property
    def members(self) -> list[MemberId]:
        """Those that the protocol measures."""
        return [member_id for member_id in self.targets if len(self.acted[member_id]) >= _MIN_ACTIONS_BEFORE]


def evaluation_task(feed: Feed, cut_us: Micros) -> EvaluationTask:
    """Raises BadEvents when nobody can be measured."""
    candidates = [post for post in feed.posts.values() if post.created_at_us >= cut_us]
    index_of = {post.post_id: index for index, post in enumerate(candidates)}
    targets: dict[MemberId, dict[int, None]] = {}
    acted: dict[MemberId, list[PostId]] = {}
    for positive in feed.positives:
        if positive.at_us < cut_us:
            acted.setdefault(positive.member_id, []).append(positive.post_id)
        elif positive.post_id in index_of:
            targets.setdefault(positive.member_id, {})[index_of[positive.post_id]] = None
    members = sorted(targets)
    task = EvaluationTask(
        cut_us,
        candidates,
        {member_id: list(targets[member_id]) for member_id in members},
        {member_id: acted.get(member_id, []) for member_id in members},
    )
    if not task.members:
        raise BadEvents(
            f"no member has {_MIN_ACTIONS_BEFORE} positive actions before the held out ones and one on a post of their "
            "time; give more events, or another --holdout"
        )
    return task
