"""What all arms are measured on: each member shall find, at the cut, those of the live posts that it acts on later.

Unlike the trainer's evaluation, whose candidates are new and so without counts, these were there before, with the
counts that the pipeline had published by then: only so can numbers in a prompt say anything. What a member wrote or has
acted on is left out of its ranking. The made-up feed also says how likely each member acts on each candidate.

Shapes: M members, C candidates.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from benchmarks.kit.ablations.arms import RULES
from encoders.prompt.prompts import has_profile
from nearline.demo.made_feed.feed import MadeFeed
from nearline.demo.made_feed.shape import SHOWN_FOR_S, Flags, Ints, Numbers
from schemas.contexts import MemberContext, PostContext
from schemas.events import parse_event
from schemas.ids import MemberId, Micros, PostId
from schemas.times import to_micros
from trainer.data.feed import Feed, timed_event
from trainer.data.replay import PublishingReplay
from trainer.errors import BadEvents
from trainer.evaluation.package_vectors import Matrix
from trainer.evaluation.ranking_metrics import Ranks, ranks_of

HOLDOUT: Final = 0.15
MOST_MEMBERS: Final = 1_500
POPULARITY: Final = "count.click"
_ROWS_AT_ONCE: Final = 200
LENGTHS: Final = (("0", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20+", 20, 10**9))
"""Members by their positive actions before the cut: name, least and most."""


class LiveTask(NamedTuple):
    cut_us: Micros
    candidates: list[PostContext]
    members: list[MemberId]
    targets: list[list[int]]
    """For each member the indices of the candidates that it acts on later."""
    lengths: list[int]
    """How many positive actions each member did before."""
    left_out_MC: Flags
    """What the member wrote or has acted on."""
    profile_only_M: Flags
    """Whether the pipeline knew the member by its profile alone: it had acted on nothing and written nothing."""
    chances_MC: Numbers
    """How likely the member acts on the candidate if it looks at it; 0 where it is left out."""

    def ranks(self, scores_MC: Matrix) -> Ranks:
        return ranks_of(np.where(self.left_out_MC, -np.inf, scores_MC), self.targets)

    def expected(self, scores_MC: Matrix, k: int) -> Numbers:
        """(M,): how many of the best `k` each member would act on if it looked at them."""
        masked_MC = np.where(self.left_out_MC, -np.inf, scores_MC)
        best_MK = np.argsort(-masked_MC, axis=1, kind="stable")[:, :k]
        sums_M: Numbers = np.take_along_axis(self.chances_MC, best_MK, 1).sum(1)
        return sums_M

    @property
    def popularity_C(self) -> Numbers:
        """How often each candidate was clicked on so far."""
        action = POPULARITY.partition(".")[2]
        return np.array([post.counts.get(action, 0) for post in self.candidates], dtype=np.float64)

    def of_length(self, name: str) -> Flags:
        (least, most) = next((least, most) for group, least, most in LENGTHS if group == name)
        return np.array([least <= length <= most for length in self.lengths])


def feed_of(made: MadeFeed) -> Feed:
    lines = (line.encode() for line in made.lines())
    return Feed((timed_event(parse_event(line), line) for line in lines), RULES)


def live_task(made: MadeFeed, feed: Feed) -> LiveTask:
    """Raises BadEvents where nobody acts later on a post that was there."""
    cut_us = feed.cut(HOLDOUT)
    since_us = cut_us - SHOWN_FOR_S * 1e6
    replay = _replayed(feed, cut_us)
    candidates = [post for post in replay.post_contexts.values() if not post.deleted and post.created_at_us >= since_us]
    index_of = {post.post_id: index for index, post in enumerate(candidates)}
    before: dict[MemberId, list[PostId]] = {}
    later: dict[MemberId, dict[int, None]] = {}
    for positive in feed.positives:
        if positive.at_us < cut_us:
            before.setdefault(positive.member_id, []).append(positive.post_id)
        elif positive.post_id in index_of and positive.post_id not in before.get(positive.member_id, ()):
            later.setdefault(positive.member_id, {})[index_of[positive.post_id]] = None
    if not later:
        raise BadEvents("nobody acts after the cut on a post that was there before it; make a larger world")
    drawn = np.random.default_rng(0).permutation(sorted(later))[:MOST_MEMBERS]
    members = [MemberId(str(member_id)) for member_id in sorted(drawn)]
    left_out_MC = _left_out(candidates, members, before)
    return LiveTask(
        cut_us,
        candidates,
        members,
        [list(later[member_id]) for member_id in members],
        [len(before.get(member_id, ())) for member_id in members],
        left_out_MC,
        np.array([_is_profile_only(replay.context(member_id, cut_us)) for member_id in members]),
        _chances(made, cut_us, candidates, members) * ~left_out_MC,
    )


def _is_profile_only(context: MemberContext) -> bool:
    return has_profile(context) and not context.history


def member_contexts(feed: Feed, task: LiveTask) -> list[MemberContext]:
    """As the pipeline would publish them at the cut."""
    replay = _replayed(feed, task.cut_us)
    return [replay.context(member_id, task.cut_us) for member_id in task.members]


def _replayed(feed: Feed, cut_us: Micros) -> PublishingReplay:
    replay = PublishingReplay(feed.rules)
    for timed in feed.before(cut_us):
        replay.apply(timed)
    replay.publish_due(cut_us)
    return replay


def _left_out(
    candidates: Sequence[PostContext], members: Sequence[MemberId], acted: dict[MemberId, list[PostId]]
) -> Flags:
    index_of = {post.post_id: index for index, post in enumerate(candidates)}
    authors_C = np.array([post.author_id for post in candidates])
    left_out_MC = np.array([authors_C == member_id for member_id in members])
    for row, member_id in enumerate(members):
        known = [index_of[post_id] for post_id in acted.get(member_id, ()) if post_id in index_of]
        left_out_MC[row, known] = True
    return left_out_MC


def _chances(made: MadeFeed, cut_us: Micros, candidates: Sequence[PostContext], members: Sequence[MemberId]) -> Numbers:
    posts_C, members_M = numbers_of([post.post_id for post in candidates]), numbers_of(members)
    at_s = seconds_at(made, cut_us)
    rows = (members_M[first : first + _ROWS_AT_ONCE, None] for first in range(0, len(members_M), _ROWS_AT_ONCE))
    return np.concatenate([made.chance(members_R1, posts_C, at_s) for members_R1 in rows])


def numbers_of(ids: Sequence[str]) -> Ints:
    """The numbers that the made-up feed has for posts or members of these ids."""
    return np.array([int(entity_id[1:]) for entity_id in ids], dtype=np.int64)


def seconds_at(made: MadeFeed, at_us: Micros) -> np.float64:
    """Since the made-up feed began."""
    return np.float64((at_us - to_micros(made.start)) / 1e6)
