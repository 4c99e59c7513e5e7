"""What members are shown in a made-up feed, at which position, and what they do.

A feed ranks what `candidates` thinks of. All sessions of one step are drawn at once, with what happened before the
step. Owns what is shown and done; the chance to act is in `chance`. Shapes: S sessions of a step, C candidates of each,
K positions.
"""

from typing import Final, NamedTuple

import numpy as np

from nearline.demo.made_feed import shape
from nearline.demo.made_feed.candidates import Candidates
from nearline.demo.made_feed.chance import Chance, Follows, chance_of
from nearline.demo.made_feed.people import People
from nearline.demo.made_feed.posts import Posts, moments
from nearline.demo.made_feed.shape import FeedSize, Flags, Ints, Numbers

ACTIONS: Final = ("impression", "view", "dwell", "hide", "click", "like", "comment", "share", "follow")
_CODE: Final = {action: code for code, action in enumerate(ACTIONS)}
_LOOK_S: Final = 2.0
"""Between two positions."""


class Actions(NamedTuple):
    """Arrays over activity events."""

    at_s: Numbers
    member: Ints
    post: Ints
    action: Ints
    """An index in ACTIONS."""
    dwell_s: Numbers
    """0 for all but dwells."""
    position: Ints
    """From 0."""


class _Shown(NamedTuple):
    """Arrays over what was shown in a step."""

    at_s: Numbers
    member: Ints
    post: Ints
    position: Ints
    looked: Flags
    acted: Flags


class Simulation:
    def __init__(self, size: FeedSize, people: People, posts: Posts, rng: np.random.Generator) -> None:
        self._size, self._people, self._posts, self._rng = size, people, posts, rng
        self.follows = Follows(people)
        self.chance = Chance(people, posts, self.follows)
        self._candidates = Candidates(people, posts, rng)
        self._num_positive = np.zeros(len(posts))
        self._shown_keys: Ints = np.empty(0, dtype=np.int64)

    def run(self) -> Actions:
        members, at_s = self._sessions()
        steps = zip(np.array_split(members, shape.STEPS), np.array_split(at_s, shape.STEPS), strict=True)
        parts = [self._step(*step) for step in steps]
        return Actions(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _sessions(self) -> tuple[Ints, Numbers]:
        """Who scrolls, and when, in the order of time."""
        num, people = round(self._size.activity / shape.EVENTS_PER_SESSION), self._people
        members = self._rng.choice(len(people), num, p=people.busyness)
        end_s = self._size.days * shape.DAY_S
        from_s = people.acts_from_s[members]
        at_s = moments(self._rng.random(num), self._size.days)
        at_s = np.where(at_s < from_s, from_s + self._rng.random(num) * (end_s - from_s), at_s)
        at_s = np.minimum(at_s, end_s - 2 * shape.POSITIONS * _LOOK_S)
        order = np.argsort(at_s, kind="stable")
        return members[order], at_s[order]

    def _step(self, members: Ints, at_s: Numbers) -> Actions:
        shown = self._show(members, at_s)
        new_keys = np.sort(self._keys(shown.member, shown.post))
        places = np.searchsorted(self._shown_keys, new_keys)
        self._shown_keys = np.insert(self._shown_keys, places, new_keys)
        acted_posts = shown.post[shown.acted]
        np.add.at(self._num_positive, acted_posts, 1)
        self._candidates.add_positives(acted_posts)
        actions = self._act(shown)
        new = actions.action == _CODE["follow"]
        self.follows.add(actions.member[new], self._posts.author[actions.post[new]], actions.at_s[new])
        return actions

    def _show(self, members: Ints, at_s: Numbers) -> _Shown:
        posts_SC = self._candidates.draw(members, at_s)
        members_S1, at_S1 = members[:, None], at_s[:, None]
        logit_SC = self.chance.logit(members_S1, posts_SC, at_S1)
        scores_SC = logit_SC + self._rng.normal(0, shape.RANKING_NOISE, posts_SC.shape)
        scores_SC += shape.POPULARITY * np.log1p(self._num_positive[posts_SC])
        scores_SC[~self._may_show(members_S1, posts_SC, at_S1)] = -np.inf
        best_SK = np.argsort(-scores_SC, axis=1)[:, : shape.POSITIONS]
        posts_SK = np.take_along_axis(posts_SC, best_SK, 1)
        position_SK = np.broadcast_to(np.arange(shape.POSITIONS), posts_SK.shape)
        reached_SK = position_SK < self._rng.geometric(1 - shape.REACHED, (len(members), 1))
        reached_SK &= np.isfinite(np.take_along_axis(scores_SC, best_SK, 1))
        looked_SK = self._rng.random(posts_SK.shape) < 1 / (position_SK + 1.0) ** shape.LOOK_POWER
        chance_SK = chance_of(np.take_along_axis(logit_SC, best_SK, 1))
        acted_SK = looked_SK & (self._rng.random(posts_SK.shape) < chance_SK)
        rows, columns = np.nonzero(reached_SK)
        # A member may have two sessions in a step.
        _, first = np.unique(self._keys(members[rows], posts_SK[rows, columns]), return_index=True)
        rows, columns = rows[np.sort(first)], columns[np.sort(first)]
        return _Shown(
            at_s[rows] + columns * _LOOK_S,
            members[rows],
            posts_SK[rows, columns],
            columns,
            looked_SK[rows, columns],
            acted_SK[rows, columns],
        )

    def _may_show(self, members_S1: Ints, posts_SC: Ints, at_S1: Numbers) -> Flags:
        """Not what is not there, what the member wrote or was shown before, nor the same post twice."""
        made = self._posts
        may_SC = (made.created_s[posts_SC] < at_S1) & (made.deleted_s[posts_SC] > at_S1 + 600)
        may_SC &= at_S1 - made.created_s[posts_SC] < shape.SHOWN_FOR_S
        may_SC &= made.author[posts_SC] != members_S1
        may_SC &= ~_is_in(self._shown_keys, self._keys(members_S1, posts_SC))
        order_SC = np.argsort(posts_SC, axis=1, kind="stable")
        in_order_SC = np.take_along_axis(posts_SC, order_SC, 1)
        again_SC = np.zeros_like(may_SC)
        np.put_along_axis(again_SC, order_SC[:, 1:], in_order_SC[:, 1:] == in_order_SC[:, :-1], 1)
        return may_SC & ~again_SC

    def _keys(self, members: Ints, posts: Ints) -> Ints:
        return members * len(self._posts) + posts

    def _act(self, shown: _Shown) -> Actions:
        """The events of what was shown: an impression, and what the member did then, in the order of time."""
        rng, num = self._rng, len(shown.post)
        draw = rng.random(num)
        missed = shown.looked & ~shown.acted
        deeds = (
            (np.ones(num, dtype=bool), np.full(num, _CODE["impression"]), 0.0),
            (missed & (draw < shape.VIEWS), np.full(num, _CODE["view"]), 0.5),
            (missed & (draw > 1 - shape.SHORT_DWELLS), np.full(num, _CODE["dwell"]), 0.5),
            (missed & (rng.random(num) < shape.HIDES), np.full(num, _CODE["hide"]), 0.8),
            (shown.acted & (draw < shape.READS_TOO), np.full(num, _CODE["dwell"]), 0.5),
            (shown.acted, _positive_actions(num, rng), 1.0),
        )
        parts = [self._events(shown, which, action, after_s) for which, action, after_s in deeds]
        return Actions(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _events(self, shown: _Shown, which: Flags, action: Ints, after_s: float) -> Actions:
        action = action[which]
        num = len(action)
        acted, is_dwell = shown.acted[which], action == _CODE["dwell"]
        dwell_s = self._rng.lognormal(np.log(shape.DWELL_MEDIAN_S), shape.DWELL_SIGMA, num)
        # Who acts stays longer than what makes a dwell positive, who does not leaves before.
        long, short = np.maximum(dwell_s, shape.POSITIVE_DWELL_S), np.minimum(dwell_s / 6, shape.POSITIVE_DWELL_S - 1)
        dwell_s = np.where(is_dwell, np.where(acted, long, short), 0.0)
        at_s = shown.at_s[which] + after_s + self._rng.random(num) * 0.4
        return Actions(at_s, shown.member[which], shown.post[which], action, dwell_s, shown.position[which])


def _positive_actions(num: int, rng: np.random.Generator) -> Ints:
    codes = np.array([_CODE[action] for action in shape.ACTS])
    drawn: Ints = rng.choice(codes, num, p=list(shape.ACTS.values()))
    return drawn


def _is_in(keys: Ints, wanted: Ints) -> Flags:
    """`keys`: rising."""
    if not len(keys):
        return np.zeros(wanted.shape, dtype=bool)
    found: Flags = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return found
